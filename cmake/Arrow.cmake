# Apache Arrow and Parquet from the pyarrow wheel in .deps/py, if it is there; without it Parquet
# input is refused with a message that says so.
add_library(halo_arrow INTERFACE)
file(GLOB arrow_library ${HALO_DEPS}/pyarrow/libarrow.so.*)
file(GLOB parquet_library ${HALO_DEPS}/pyarrow/libparquet.so.*)
option(HALO_PARQUET "Read Parquet through the pyarrow wheel where it is installed" ON)
if(HALO_PARQUET AND arrow_library AND parquet_library)
  target_compile_definitions(halo_arrow INTERFACE HALO_HAVE_PARQUET=1)
  target_compile_options(halo_arrow INTERFACE "SHELL:-idirafter ${HALO_DEPS}/pyarrow/include")
  target_link_libraries(halo_arrow INTERFACE ${arrow_library} ${parquet_library})
endif()
