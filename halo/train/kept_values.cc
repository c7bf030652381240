#include "halo/train/kept_values.h"

#include <algorithm>

#include "ATen/ATen.h"
#include "halo/base/check.h"

namespace halo {
namespace {

// What the compute copy has where master() has `range`, which is of one group.
at::Tensor compute_at(const ParameterStore& store, const Range& range) {
  for (const ParameterStore::Group& group : store.groups()) {
    if (intersection(group.kept, range) != range) continue;
    return store.kept_compute(group).narrow(0, range.begin - group.kept.begin, range.size);
  }
  throw_error("checkpoint: elements {} to {} are of no group", range.begin, range.end());
}

ReadKept reader_of(const at::Tensor& arena) {
  return
      [arena](const Range& range) { return arena.narrow(0, range.begin, range.size).to(at::kCPU); };
}

bool has_own_copy(const ParameterStore& store) {
  return store.compute_type() != at::kFloat;
}

at::TensorOptions host_options(const ParameterStore& store, at::ScalarType type) {
  return at::TensorOptions().dtype(type).pinned_memory(!store.device().is_cpu());
}

}  // namespace

KeptValues values_of(ParameterStore& store) {
  KeptValues values{reader_of(store.master()), reader_of(store.moment1()),
                    reader_of(store.moment2()), reader_of(store.master())};
  if (has_own_copy(store)) {
    values.compute = [&store](const Range& range) { return compute_at(store, range).to(at::kCPU); };
  }
  return values;
}

KeptCopy::HostArena::HostArena(int64_t size, at::TensorOptions options, int64_t block_bytes)
    : block_size_(block_bytes / static_cast<int64_t>(options.dtype().itemsize())) {
  for (int64_t begin = 0; begin < size; begin += block_size_) {
    blocks_.push_back(at::empty({std::min(block_size_, size - begin)}, options));
  }
}

template <class Visit>
void KeptCopy::HostArena::visit(const Range& range, Visit visit) const {
  for (int64_t done = 0; done < range.size;) {
    const int64_t at = range.begin + done, begin = at % block_size_;
    const int64_t size = std::min(block_size_ - begin, range.size - done);
    visit(blocks_.at(at / block_size_).narrow(0, begin, size), done);
    done += size;
  }
}

void KeptCopy::HostArena::copy(const at::Tensor& values, int64_t begin) {
  visit({begin, values.numel()}, [&](const at::Tensor& part, int64_t first) {
    part.copy_(values.narrow(0, first, part.numel()), /*non_blocking=*/true);
  });
}

at::Tensor KeptCopy::HostArena::read(const Range& range) const {
  std::vector<at::Tensor> parts;
  visit(range, [&](const at::Tensor& part, int64_t) { parts.push_back(part); });
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

KeptCopy::KeptCopy(ParameterStore& store, int64_t block_bytes)
    : store_(store),
      side_(store.device()),
      master_(store.master().numel(), host_options(store, at::kFloat), block_bytes),
      moment1_(store.master().numel(), host_options(store, at::kFloat), block_bytes),
      moment2_(store.master().numel(), host_options(store, at::kFloat), block_bytes),
      compute_(has_own_copy(store) ? store.master().numel() : 0,
               host_options(store, store.compute_type()), block_bytes) {}

DeviceEvent KeptCopy::take() {
  at::NoGradGuard no_grad;
  return side_.run([&] {
    master_.copy(store_.master(), 0);
    moment1_.copy(store_.moment1(), 0);
    moment2_.copy(store_.moment2(), 0);
    if (!has_own_copy(store_)) return;
    for (const ParameterStore::Group& group : store_.groups()) {
      compute_.copy(store_.kept_compute(group), group.kept.begin);
    }
  });
}

KeptValues KeptCopy::values() const {
  const auto reader = [](const HostArena& arena) {
    return [&arena](const Range& range) { return arena.read(range); };
  };
  return {reader(master_), reader(moment1_), reader(moment2_),
          reader(has_own_copy(store_) ? compute_ : master_)};
}

}  // namespace halo
