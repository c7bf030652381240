# halo_version(TARGET): the source that defines version_line() (halo/cli/version.h). Every build asks
# git for the commit, but the source changes, and is compiled, only if the answer does.
#
# A tarball has no .git: there `git archive` has put the commit into packaging/commit.
if(CMAKE_SCRIPT_MODE_FILE)
  set(commit "")
  if(EXISTS ${SOURCE_DIR}/.git)
    execute_process(
      COMMAND git describe --always --exclude * --abbrev=12 --dirty=+changes
      WORKING_DIRECTORY ${SOURCE_DIR} OUTPUT_VARIABLE commit ERROR_QUIET
      OUTPUT_STRIP_TRAILING_WHITESPACE)
    # git does not answer root about another user's checkout (`sudo make install`): then what the
    # user's build said stays.
    if(NOT commit AND EXISTS ${OUTPUT})
      return()
    endif()
  else()
    file(STRINGS ${SOURCE_DIR}/packaging/commit commit REGEX "^[0-9a-f]+$")
  endif()
  set(LINE "halo ${VERSION}")
  if(commit)
    string(APPEND LINE " (${commit})")
  endif()
  configure_file(${SOURCE_DIR}/cmake/version.cc.in ${OUTPUT} @ONLY)
  return()
endif()

function(halo_version target)
  set(source ${CMAKE_BINARY_DIR}/version.cc)
  add_custom_target(halo_version_source
    COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${CMAKE_SOURCE_DIR} -DVERSION=${PROJECT_VERSION}
            -DOUTPUT=${source} -P ${CMAKE_SOURCE_DIR}/cmake/HaloVersion.cmake
    BYPRODUCTS ${source} COMMENT "" VERBATIM)
  target_sources(${target} PRIVATE ${source})
  set_source_files_properties(${source} PROPERTIES GENERATED TRUE SKIP_PRECOMPILE_HEADERS TRUE)
  add_dependencies(${target} halo_version_source)
endfunction()
