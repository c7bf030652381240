#include "halo/kernels/attention/cudnn_graph.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstddef>

#include "halo/base/check.h"

namespace halo {

// The functions, by what they are used for here. All return cudnnStatus_t, 0 for success.
struct CudnnFunctions {
  int (*create)(void** handle);
  int (*destroy)(void* handle);
  int (*set_stream)(void* handle, void* stream);
  const char* (*error_string)(int status);
  void (*last_error)(char* message, size_t size);
  int (*make)(int type, void** descriptor);
  int (*drop)(void* descriptor);
  int (*set)(void* descriptor, int name, int type, int64_t count, const void* values);
  int (*get)(const void* descriptor, int name, int type, int64_t room, int64_t* count,
             void* values);
  int (*finish)(void* descriptor);
  int (*execute)(void* handle, void* plan, void* places);
};

namespace {

// cudnnBackendAttributeType_t, cudnnBackendDescriptorType_t and cudnnBackendAttributeName_t of
// cuDNN 9, as far as they are used.
enum Kind : int {
  kOfHandle = 0,
  kOfDataType = 1,
  kOfBoolean = 2,
  kOfInt64 = 3,
  kOfFloat = 4,
  kOfDouble = 5,
  kOfPointer = 6,
  kOfHeuristic = 8,
  kOfNumericalNote = 11,
  kOfPointwise = 14,
  kOfDescriptor = 15,
  kOfReduction = 18,
};
enum Descriptor : int {
  kPointwise = 0,
  kEngine = 2,
  kEngineConfig = 3,
  kHeuristics = 4,
  kPlan = 5,
  kPointwiseOperation = 13,
  kGraph = 15,
  kPlaces = 16,
  kTensor = 17,
  kMatmul = 18,
  kMatmulOperation = 19,
  kReduction = 21,
  kReductionOperation = 22,
  kReshapeOperation = 31,
};
enum Attribute : int {
  kPointwiseMode = 0,
  kPointwiseType = 1,
  kPointwiseAxis = 9,
  kHeuristicsMode = 200,
  kHeuristicsGraph = 201,
  kHeuristicsResults = 202,
  kConfigEngine = 300,
  kPlanHandle = 400,
  kPlanConfig = 401,
  kPlanWorkspace = 402,
  kPointwiseOf = 750,
  kPointwiseX = 751,
  kPointwiseB = 752,
  kPointwiseY = 753,
  kPointwiseScaleX = 754,
  kPointwiseScaleB = 755,
  kPointwiseWhere = 758,
  kGraphHandle = 800,
  kGraphOperations = 801,
  kTensorAlignment = 900,
  kTensorType = 901,
  kTensorSizes = 902,
  kTensorStrides = 903,
  kTensorId = 906,
  kTensorIsVirtual = 907,
  kTensorIsNumber = 908,
  kPlacesIds = 1000,
  kPlacesPointers = 1001,
  kPlacesWorkspace = 1003,
  kEngineNotes = 1303,
  kMatmulType = 1500,
  kMatmulPadding = 1503,
  kMatmulA = 1520,
  kMatmulB = 1521,
  kMatmulC = 1522,
  kMatmulOf = 1523,
  kReductionOperator = 1600,
  kReductionType = 1601,
  kReductionIsDeterministic = 1602,
  kReductionX = 1610,
  kReductionY = 1611,
  kReductionOf = 1612,
  kReshapeX = 2200,
  kReshapeY = 2201,
};
constexpr int kAddUp = 0;                          // cudnnReduceTensorOp_t
constexpr int kHeuristicModeA = 3;                 // cudnnBackendHeurMode_t
constexpr int kNoFixedOrder = 4, kNoteCount = 10;  // cudnnBackendNumericalNote_t

template <class F>
void find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (!function) throw_error("cuDNN has no {}; LibTorch 2.11 comes with one that does", name);
}

std::shared_ptr<const CudnnFunctions> load_cudnn() {
  // LibTorch's and no other: libtorch_cuda.so names it among what it needs, so it is here already.
  void* library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_NOLOAD);
  if (!library) throw_error("libcudnn.so.9 is not loaded; LibTorch 2.11's CUDA library loads it");
  auto cudnn = std::make_shared<CudnnFunctions>();
  find(library, "cudnnCreate", cudnn->create);
  find(library, "cudnnDestroy", cudnn->destroy);
  find(library, "cudnnSetStream", cudnn->set_stream);
  find(library, "cudnnGetErrorString", cudnn->error_string);
  find(library, "cudnnGetLastErrorString", cudnn->last_error);
  find(library, "cudnnBackendCreateDescriptor", cudnn->make);
  find(library, "cudnnBackendDestroyDescriptor", cudnn->drop);
  find(library, "cudnnBackendSetAttribute", cudnn->set);
  find(library, "cudnnBackendGetAttribute", cudnn->get);
  find(library, "cudnnBackendFinalize", cudnn->finish);
  find(library, "cudnnBackendExecute", cudnn->execute);
  return cudnn;
}

std::string reason(const CudnnFunctions& cudnn, int status) {
  std::array<char, 512> more{};
  cudnn.last_error(more.data(), more.size());
  return fmt::format("{}; {}", cudnn.error_string(status), more.data());
}

void check(const CudnnFunctions& cudnn, int status, const char* what) {
  if (status != 0) throw_error("cuDNN failed {}: {}", what, reason(cudnn, status));
}

}  // namespace

CudnnLayout packed_layout(const std::array<int64_t, 4>& sizes) {
  return {sizes, {sizes[1] * sizes[2] * sizes[3], sizes[2] * sizes[3], sizes[3], 1}};
}

CudnnLayout transposed_layout(const CudnnLayout& x) {
  CudnnLayout out = x;
  std::swap(out.sizes[2], out.sizes[3]);
  std::swap(out.strides[2], out.strides[3]);
  return out;
}

CudnnHandle::CudnnHandle() : functions_(load_cudnn()) {
  check(*functions_, functions_->create(&handle_), "to connect to the device");
}

CudnnHandle::~CudnnHandle() {
  functions_->destroy(handle_);
}

void CudnnHandle::set_stream(void* stream) {
  check(*functions_, functions_->set_stream(handle_, stream), "to take the stream");
}

CudnnGraph::~CudnnGraph() {
  for (auto it = descriptors_.rbegin(); it != descriptors_.rend(); ++it)
    handle_.functions().drop(*it);
}

void* CudnnGraph::make(int type) {
  void* descriptor = nullptr;
  check(handle_.functions(), handle_.functions().make(type, &descriptor), "to make a descriptor");
  descriptors_.push_back(descriptor);
  return descriptor;
}

void CudnnGraph::set(void* descriptor, int name, int type, int64_t count, const void* values) {
  check(handle_.functions(), handle_.functions().set(descriptor, name, type, count, values),
        fmt::format("to set attribute {}", name).c_str());
}

void CudnnGraph::set_int(void* descriptor, int name, int type, int value) {
  set(descriptor, name, type, 1, &value);
}

void CudnnGraph::set_part(void* descriptor, int name, void* part) {
  set(descriptor, name, kOfDescriptor, 1, &part);
}

void CudnnGraph::finish(void* descriptor, const char* what) {
  check(handle_.functions(), handle_.functions().finish(descriptor), what);
}

// Without its end: what it is beside these is set by who calls.
void* CudnnGraph::tensor(CudnnType type, const CudnnLayout& layout) {
  void* out = make(kTensor);
  const int64_t alignment = 16, id = std::ssize(tensors_) + 1;
  set_int(out, kTensorType, kOfDataType, static_cast<int>(type));
  set(out, kTensorSizes, kOfInt64, 4, layout.sizes.data());
  set(out, kTensorStrides, kOfInt64, 4, layout.strides.data());
  set(out, kTensorId, kOfInt64, 1, &id);
  set(out, kTensorAlignment, kOfInt64, 1, &alignment);
  tensors_.push_back(out);
  return out;
}

CudnnTensor CudnnGraph::in_memory(CudnnType type, const CudnnLayout& layout) {
  finish(tensor(type, layout), "to describe a tensor");
  return std::ssize(tensors_);
}

CudnnTensor CudnnGraph::number() {
  const bool yes = true;
  void* out = tensor(CudnnType::kFloat, packed_layout({1, 1, 1, 1}));
  set(out, kTensorIsNumber, kOfBoolean, 1, &yes);
  finish(out, "to describe a number");
  return std::ssize(tensors_);
}

CudnnTensor CudnnGraph::between(CudnnType type, const CudnnLayout& layout) {
  const bool yes = true;
  void* out = tensor(type, layout);
  set(out, kTensorIsVirtual, kOfBoolean, 1, &yes);
  finish(out, "to describe what is between operations");
  return std::ssize(tensors_);
}

void CudnnGraph::add(void* operation, const char* what) {
  finish(operation, what);
  operations_.push_back(operation);
}

void* CudnnGraph::pointwise_operation(CudnnPointwise mode, std::optional<int64_t> axis,
                                      CudnnTensor x, CudnnTensor y) {
  const bool compares = mode == CudnnPointwise::kGreaterOrEqual;
  const float one = 1;
  void* of = make(kPointwise);
  set_int(of, kPointwiseMode, kOfPointwise, static_cast<int>(mode));
  set_int(of, kPointwiseType, kOfDataType,
          static_cast<int>(compares ? CudnnType::kBoolean : CudnnType::kFloat));
  if (axis) set(of, kPointwiseAxis, kOfInt64, 1, &*axis);
  finish(of, "to describe what is done to elements");
  void* out = make(kPointwiseOperation);
  set_part(out, kPointwiseOf, of);
  set_part(out, kPointwiseX, tensors_[x - 1]);
  set_part(out, kPointwiseY, tensors_[y - 1]);
  set(out, kPointwiseScaleX, kOfFloat, 1, &one);
  set(out, kPointwiseScaleB, kOfFloat, 1, &one);
  return out;
}

void CudnnGraph::pointwise(CudnnPointwise mode, CudnnTensor x, std::optional<CudnnTensor> b,
                           CudnnTensor y, std::optional<CudnnTensor> where) {
  void* out = pointwise_operation(mode, std::nullopt, x, y);
  if (b) set_part(out, kPointwiseB, tensors_[*b - 1]);
  if (where) set_part(out, kPointwiseWhere, tensors_[*where - 1]);
  add(out, "to work on elements");
}

void CudnnGraph::index(CudnnTensor x, int64_t axis, CudnnTensor y) {
  add(pointwise_operation(CudnnPointwise::kIndex, axis, x, y), "to number elements");
}

void CudnnGraph::multiply_matrices(CudnnTensor a, CudnnTensor b, CudnnTensor c) {
  const double zero = 0;
  void* of = make(kMatmul);
  set_int(of, kMatmulType, kOfDataType, static_cast<int>(CudnnType::kFloat));
  set(of, kMatmulPadding, kOfDouble, 1, &zero);
  finish(of, "to describe a product");
  void* out = make(kMatmulOperation);
  set_part(out, kMatmulA, tensors_[a - 1]);
  set_part(out, kMatmulB, tensors_[b - 1]);
  set_part(out, kMatmulC, tensors_[c - 1]);
  set_part(out, kMatmulOf, of);
  add(out, "to multiply matrices");
}

void CudnnGraph::sum(CudnnTensor x, CudnnTensor y) {
  // As cuDNN's frontend says of attention's sums, and its kernel was measured with: another word
  // might find another kernel. That the order is fixed nonetheless is seen to by build(), which
  // takes no engine that is said to have none, and by a test that compares bits.
  const bool no = false;
  void* of = make(kReduction);
  set_int(of, kReductionOperator, kOfReduction, kAddUp);
  set_int(of, kReductionType, kOfDataType, static_cast<int>(CudnnType::kFloat));
  set(of, kReductionIsDeterministic, kOfBoolean, 1, &no);
  finish(of, "to describe a sum");
  void* out = make(kReductionOperation);
  set_part(out, kReductionX, tensors_[x - 1]);
  set_part(out, kReductionY, tensors_[y - 1]);
  set_part(out, kReductionOf, of);
  add(out, "to sum");
}

void CudnnGraph::reshape(CudnnTensor x, CudnnTensor y) {
  void* out = make(kReshapeOperation);
  set_part(out, kReshapeX, tensors_[x - 1]);
  set_part(out, kReshapeY, tensors_[y - 1]);
  add(out, "to reshape");
}

bool CudnnGraph::has_no_fixed_order(void* config) {
  const CudnnFunctions& cudnn = handle_.functions();
  void* engine = make(kEngine);
  int64_t count = 0;
  check(cudnn, cudnn.get(config, kConfigEngine, kOfDescriptor, 1, &count, &engine),
        "to name a kernel's engine");
  std::array<int, kNoteCount> notes{};
  count = 0;
  check(cudnn, cudnn.get(engine, kEngineNotes, kOfNumericalNote, kNoteCount, &count, notes.data()),
        "to describe an engine's numbers");
  const auto end = notes.begin() + std::clamp<int64_t>(count, 0, kNoteCount);
  return std::find(notes.begin(), end, kNoFixedOrder) != end;
}

void CudnnGraph::build() {
  const CudnnFunctions& cudnn = handle_.functions();
  void* connection = handle_.get();
  void* graph = make(kGraph);
  set(graph, kGraphHandle, kOfHandle, 1, &connection);
  set(graph, kGraphOperations, kOfDescriptor, std::ssize(operations_), operations_.data());
  finish(graph, "to put the operations together");
  void* heuristics = make(kHeuristics);
  set_part(heuristics, kHeuristicsGraph, graph);
  set_int(heuristics, kHeuristicsMode, kOfHeuristic, kHeuristicModeA);
  finish(heuristics, "to look for kernels");
  int64_t count = 0;
  check(cudnn, cudnn.get(heuristics, kHeuristicsResults, kOfDescriptor, 0, &count, nullptr),
        "to count kernels");
  std::vector<void*> configs(count);
  for (void*& config : configs) config = make(kEngineConfig);
  check(cudnn,
        cudnn.get(heuristics, kHeuristicsResults, kOfDescriptor, count, &count, configs.data()),
        "to name kernels");
  configs.resize(count);
  std::string refusal = "none was proposed";
  for (void* config : configs) {
    if (has_no_fixed_order(config)) {
      refusal = "the engine has no fixed order of sums";
      continue;
    }
    void* plan = make(kPlan);
    set(plan, kPlanHandle, kOfHandle, 1, &connection);
    set_part(plan, kPlanConfig, config);
    if (const int status = cudnn.finish(plan); status != 0) {  // not on this device: the next one
      refusal = reason(cudnn, status);
      continue;
    }
    int64_t one = 0;
    check(cudnn, cudnn.get(plan, kPlanWorkspace, kOfInt64, 1, &one, &workspace_bytes_),
          "to say how much memory a plan works in");
    plan_ = plan;
    return;
  }
  throw_error(
      "cuDNN has no kernel here for this graph of {} operations, of {} that it proposed: {}",
      operations_.size(), count, refusal);
}

void CudnnGraph::run(const Places& places, void* workspace) const {
  const CudnnFunctions& cudnn = handle_.functions();
  std::vector<int64_t> ids;
  std::vector<void*> pointers;
  for (const auto& [id, pointer] : places) {
    ids.push_back(id);
    pointers.push_back(pointer);
  }
  void* pack = nullptr;
  check(cudnn, cudnn.make(kPlaces, &pack), "to make a descriptor");
  const std::unique_ptr<void, int (*)(void*)> owner(pack, cudnn.drop);
  const auto set = [&](int name, int type, int64_t count, const void* values) {
    check(cudnn, cudnn.set(pack, name, type, count, values), "to take the places of tensors");
  };
  set(kPlacesPointers, kOfPointer, std::ssize(pointers), pointers.data());
  set(kPlacesIds, kOfInt64, std::ssize(ids), ids.data());
  set(kPlacesWorkspace, kOfPointer, 1, &workspace);
  check(cudnn, cudnn.finish(pack), "to take the places of tensors");
  check(cudnn, cudnn.execute(handle_.get(), plan_, pack), "to run");
}

}  // namespace halo
