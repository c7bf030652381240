# halo_embed(PART FILE FUNCTION HEADER): FILE's text in the part's library, as
# `std::string_view FUNCTION()` of namespace halo, which HEADER declares. A changed FILE is read
# again at the next build.
function(halo_embed part file function header)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${file})
  file(READ ${CMAKE_SOURCE_DIR}/${file} HALO_EMBED_TEXT)
  set(HALO_EMBED_FUNCTION ${function})
  set(HALO_EMBED_HEADER ${header})
  set(output ${CMAKE_BINARY_DIR}/embedded/${function}.cc)
  configure_file(${CMAKE_SOURCE_DIR}/cmake/embedded.cc.in ${output} @ONLY)
  target_sources(halo_${part} PRIVATE ${output})
endfunction()
