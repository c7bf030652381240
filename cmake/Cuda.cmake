# CUDA sources without CMake's CUDA language, whose compiler test wants a whole toolkit to link with:
# nvcc makes objects that go into a part's library like any other. docs/decisions/cuda.md says why.
set(HALO_NVCC auto CACHE STRING
    "nvcc 13.0 for the CUDA sources: a path, auto (that of tools/bootstrap or the system's), or none")
option(HALO_CUDA "Fail where there is no nvcc, instead of building without CUDA sources" OFF)

set(HALO_NVCC_PROGRAM "")
set(candidates ${HALO_NVCC})
if(HALO_NVCC STREQUAL auto)
  find_program(nvcc_in_path nvcc NO_CACHE)
  set(candidates ${HALO_DEPS}/nvidia/cu13/bin/nvcc ${nvcc_in_path} /usr/local/cuda/bin/nvcc)
endif()
foreach(candidate ${candidates})
  if(NOT HALO_NVCC_PROGRAM AND EXISTS ${candidate})
    execute_process(COMMAND ${candidate} --version OUTPUT_VARIABLE version ERROR_QUIET)
    if(version MATCHES "release 13\\.0")
      set(HALO_NVCC_PROGRAM ${candidate})
    endif()
  endif()
endforeach()
if(HALO_NVCC_PROGRAM)
  message(STATUS "CUDA sources: ${HALO_NVCC_PROGRAM}")
elseif(HALO_CUDA)
  message(FATAL_ERROR "No nvcc 13.0: run tools/bootstrap, or name one with -DHALO_NVCC=PATH")
else()
  message(STATUS "No nvcc 13.0: built without CUDA sources")
endif()

# The runtime library comes with the wheels, nvcc or not: libtorch_cpu is linked to it.
add_library(halo_cudart INTERFACE)
target_compile_options(halo_cudart INTERFACE "SHELL:-idirafter ${HALO_DEPS}/nvidia/cu13/include")
target_link_libraries(halo_cudart INTERFACE ${HALO_DEPS}/nvidia/cu13/lib/libcudart.so.13)

# sm_90a for its own instructions; the PTX of sm_80 serves whatever comes later.
set(HALO_NVCC_FLAGS -std=c++20 -O3 -lineinfo -I${CMAKE_SOURCE_DIR} -ccbin ${CMAKE_CXX_COMPILER}
    -gencode=arch=compute_90a,code=sm_90a -gencode=arch=compute_80,code=[sm_80,compute_80]
    -Xcompiler=-Wall,-Wextra,-Wno-unused-parameter)

# Through ccache in depend mode alone, by the files that nvcc names: in its other modes ccache sees what
# one architecture preprocesses to, and takes an object in which another's code is old.
set(HALO_NVCC_LAUNCHER "")
if(CCACHE)
  set(HALO_NVCC_LAUNCHER ${HALO_CCACHE} CCACHE_DEPEND=1 ${CCACHE})
endif()

# halo_cuda_objects(OUT sources...): one object file a source.
function(halo_cuda_objects out)
  set(objects)
  foreach(source ${ARGN})
    file(RELATIVE_PATH name ${CMAKE_SOURCE_DIR} ${source})
    set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
    get_filename_component(folder ${object} DIRECTORY)
    file(MAKE_DIRECTORY ${folder})
    add_custom_command(OUTPUT ${object}
      COMMAND ${HALO_NVCC_LAUNCHER} ${HALO_NVCC_PROGRAM} ${HALO_NVCC_FLAGS} -MD -MF ${object}.d -c ${source} -o ${object}
      DEPENDS ${source} DEPFILE ${object}.d COMMENT "Building CUDA object ${name}.o" VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  set_source_files_properties(${objects} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  set(${out} ${objects} PARENT_SCOPE)
endfunction()
