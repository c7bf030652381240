# LibTorch from the PyPI wheel in .deps/py. The wheel's own CMake package wants a CUDA toolkit even
# for a CPU build, so the libraries are imported here.
set(HALO_DEPS ${CMAKE_SOURCE_DIR}/.deps/py CACHE PATH "Where tools/bootstrap put the Python wheels")
set(TORCH_ROOT ${HALO_DEPS}/torch)
if(NOT EXISTS ${TORCH_ROOT}/include/ATen/ATen.h)
  message(FATAL_ERROR "LibTorch is not at ${TORCH_ROOT}: run tools/bootstrap first")
endif()

add_library(halo_torch INTERFACE)
# The wheel carries its own fmt; -idirafter keeps the distribution's in front of it.
target_compile_options(halo_torch INTERFACE
  "SHELL:-idirafter ${TORCH_ROOT}/include"
  "SHELL:-idirafter ${TORCH_ROOT}/include/torch/csrc/api/include"
  -fopenmp -Wno-unknown-pragmas)
target_link_directories(halo_torch INTERFACE ${TORCH_ROOT}/lib)
target_link_options(halo_torch INTERFACE
  "-Wl,-rpath-link,${HALO_DEPS}/nvidia/cu13/lib")
target_link_libraries(halo_torch INTERFACE
  ${TORCH_ROOT}/lib/libtorch_cpu.so ${TORCH_ROOT}/lib/libc10.so -fopenmp)

# Every program finds LibTorch beside itself, in the checkout's .deps, or through LD_LIBRARY_PATH.
set(CMAKE_SKIP_BUILD_RPATH ON)
set(CMAKE_EXE_LINKER_FLAGS "${CMAKE_EXE_LINKER_FLAGS} -Wl,--disable-new-dtags,-rpath,'$ORIGIN/../.deps/py/torch/lib:$ORIGIN/../.deps/py/nvidia/cu13/lib:$ORIGIN/../../.deps/py/torch/lib:$ORIGIN/../../.deps/py/nvidia/cu13/lib:$ORIGIN/../.deps/py/pyarrow:$ORIGIN/../../.deps/py/pyarrow'")

# One precompiled header for all parts that use LibTorch, so they share one set of flags. No more in
# it than most sources use: docs/decisions/build-time.md.
file(WRITE ${CMAKE_BINARY_DIR}/pch_anchor.cc "\n")
function(halo_precompiled_header target)
  add_library(${target} OBJECT ${CMAKE_BINARY_DIR}/pch_anchor.cc)
  target_link_libraries(${target} PUBLIC halo_torch)
  target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_options(${target} PRIVATE ${ARGN})
  target_precompile_headers(${target} PRIVATE
    <ATen/ATen.h> <ATen/Parallel.h> <ATen/core/grad_mode.h>)
endfunction()
halo_precompiled_header(halo_pch)
if(HALO_SANITIZE_PARTS)
  halo_precompiled_header(halo_pch_sanitized ${HALO_SANITIZE_OPTIONS})
endif()
