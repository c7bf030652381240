// A graph of operations for which cuDNN has one kernel, or a few: what is used here of its
// backend's C interface, found in the library that LibTorch's CUDA library is linked to. Its header
// comes with the library, which a CPU build does without (docs/decisions/attention.md).
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace halo {

// cudnnDataType_t.
enum class CudnnType : int { kFloat = 0, kInt32 = 4, kBFloat16 = 9, kBoolean = 11 };

// cudnnPointwiseMode_t, of which y = mode(x, b): kRows and kColumns are x's own indices,
// kGreaterOrEqual is x >= b.
enum class CudnnPointwise : int {
  kMultiply = 1,
  kSubtract = 9,
  kExp = 13,
  kGreaterOrEqual = 303,
  kIndex = 501,
  kSelect = 601,
};

using CudnnTensor = int64_t;  // the id by which cuDNN knows it

// Sizes, and strides in elements: [batch, heads, rows, columns].
struct CudnnLayout {
  std::array<int64_t, 4> sizes, strides;
};
CudnnLayout packed_layout(const std::array<int64_t, 4>& sizes);
CudnnLayout transposed_layout(const CudnnLayout& x);  // its rows are x's columns

struct CudnnFunctions;

// A connection to a device, the one that is current. To be used by one thread at a time.
class CudnnHandle {
 public:
  CudnnHandle();
  ~CudnnHandle();
  CudnnHandle(const CudnnHandle&) = delete;
  CudnnHandle& operator=(const CudnnHandle&) = delete;

  const CudnnFunctions& functions() const { return *functions_; }
  void* get() const { return handle_; }
  void set_stream(void* stream);

 private:
  std::shared_ptr<const CudnnFunctions> functions_;
  void* handle_ = nullptr;
};

// First tensors and operations, then build, then any number of runs. An Error where cuDNN refuses.
// Not to be destroyed behind its handle.
class CudnnGraph {
 public:
  explicit CudnnGraph(const CudnnHandle& handle) : handle_(handle) {}
  ~CudnnGraph();
  CudnnGraph(const CudnnGraph&) = delete;
  CudnnGraph& operator=(const CudnnGraph&) = delete;

  // In memory, at a multiple of 16 bytes; one number, which the host gives; between operations.
  CudnnTensor in_memory(CudnnType type, const CudnnLayout& layout);
  CudnnTensor number();
  CudnnTensor between(CudnnType type, const CudnnLayout& layout);

  // y = mode(x, b); kSelect: x where `where` is true, b elsewhere.
  void pointwise(CudnnPointwise mode, CudnnTensor x, std::optional<CudnnTensor> b, CudnnTensor y,
                 std::optional<CudnnTensor> where = std::nullopt);
  void index(CudnnTensor x, int64_t axis, CudnnTensor y);  // of x's elements along an axis
  void multiply_matrices(CudnnTensor a, CudnnTensor b, CudnnTensor c);  // c = a b
  void sum(CudnnTensor x, CudnnTensor y);      // over the axes that are smaller in y
  void reshape(CudnnTensor x, CudnnTensor y);  // y's layout for x

  // Takes the first of the plans that cuDNN proposes, best first, that it can make and whose engine
  // it does not say to have no fixed order of sums.
  void build();
  int64_t workspace_bytes() const { return workspace_bytes_; }
  // Every tensor in memory, and the host's address of every number.
  using Places = std::vector<std::pair<CudnnTensor, void*>>;
  void run(const Places& places, void* workspace) const;

 private:
  void* make(int type);
  void set(void* descriptor, int name, int type, int64_t count, const void* values);
  void set_int(void* descriptor, int name, int type, int value);
  void set_part(void* descriptor, int name, void* part);
  void finish(void* descriptor, const char* what);
  void* tensor(CudnnType type, const CudnnLayout& layout);
  void* pointwise_operation(CudnnPointwise mode, std::optional<int64_t> axis, CudnnTensor x,
                            CudnnTensor y);
  void add(void* operation, const char* what);
  bool has_no_fixed_order(void* config);

  const CudnnHandle& handle_;
  std::vector<void*> descriptors_;  // all that were made, in their order
  std::vector<void*> tensors_;      // by id - 1
  std::vector<void*> operations_;
  void* plan_ = nullptr;
  int64_t workspace_bytes_ = 0;
};

}  // namespace halo
