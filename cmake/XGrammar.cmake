# XGrammar from its sources in .deps/src, which tools/bootstrap has put there: a static library without
# Python, with our flags. Its own CMake file wants link-time optimisation and warnings as errors.
option(HALO_GRAMMAR "Answers by a JSON schema, and calls of tools that must be made (XGrammar)" ON)
add_library(halo_xgrammar INTERFACE)
if(HALO_GRAMMAR)
  set(XGRAMMAR_ROOT ${CMAKE_SOURCE_DIR}/.deps/src/xgrammar-0.2.9)
  if(NOT EXISTS ${XGRAMMAR_ROOT}/include/xgrammar/xgrammar.h)
    message(FATAL_ERROR "XGrammar is not at ${XGRAMMAR_ROOT}: run tools/bootstrap first, or do without "
                        "(-DHALO_GRAMMAR=OFF)")
  endif()
  file(GLOB sources ${XGRAMMAR_ROOT}/cpp/*.cc ${XGRAMMAR_ROOT}/cpp/support/*.cc
       ${XGRAMMAR_ROOT}/cpp/converter_ext/*.cc)
  add_library(xgrammar STATIC EXCLUDE_FROM_ALL ${sources})
  set_target_properties(xgrammar PROPERTIES CXX_STANDARD 17)
  target_compile_options(xgrammar PRIVATE -w -g0)
  target_compile_definitions(xgrammar PUBLIC XGRAMMAR_ENABLE_CPPTRACE=0
                             XGRAMMAR_ENABLE_INTERNAL_CHECK=0)
  target_include_directories(xgrammar SYSTEM PUBLIC ${XGRAMMAR_ROOT}/include
                             ${XGRAMMAR_ROOT}/3rdparty/picojson
                             ${XGRAMMAR_ROOT}/3rdparty/dlpack/include)
  target_link_libraries(xgrammar PUBLIC Threads::Threads)
  target_compile_definitions(halo_xgrammar INTERFACE HALO_HAVE_GRAMMAR=1)
  target_link_libraries(halo_xgrammar INTERFACE xgrammar)
endif()
