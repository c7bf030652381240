// Checks, the form that is composed of paged attention, and the choice of the kernel.
#include "halo/kernels/attention/decode_attention.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/attention/attention.h"
#include "halo/kernels/attention/decode_attention_launch.h"
#include "halo/kernels/cuda/cuda_kernels.h"

namespace halo {
namespace {

void check(const DecodeCache& cache) {
  const at::Tensor& table = cache.block_table;
  HALO_CHECK(are_blocks(cache),
             "decode_attention: keys and values must be contiguous [blocks, tokens, groups, "
             "dimension], those in int8 with scales [blocks, groups, tokens]");
  const int64_t sequences = cache.lengths.numel();
  HALO_CHECK(table.dim() == 2 && table.size(0) == sequences && table.is_contiguous() &&
                 table.scalar_type() == at::kInt && cache.lengths.scalar_type() == at::kLong,
             "decode_attention: the block table must be int32 [{}, blocks], lengths int64",
             sequences);
}

void check_queries(const at::Tensor& q, const DecodeCache& cache) {
  check(cache);
  const at::Tensor& keys = cache.keys;
  const int64_t sequences = cache.lengths.numel();
  HALO_CHECK(q.dim() == 3 && sequences > 0 && q.size(0) % sequences == 0 &&
                 q.size(1) % keys.size(2) == 0 && q.size(2) == keys.size(3),
             "decode_attention: q must be [a multiple of {}, a multiple of {}, {}]", sequences,
             keys.size(2), keys.size(3));
}

bool is_power_of_two(int64_t n) {
  return n > 0 && (n & (n - 1)) == 0;
}

bool has_kernel(const at::Tensor& q, const DecodeCache& cache) {
  const int64_t sequences = cache.lengths.numel();
  const int64_t rows = q.size(1) / cache.keys.size(2) * (q.size(0) / sequences);
  return has_decode_attention_kernel(q, {.rows = rows,
                                         .head_dim = q.size(2),
                                         .block_size = cache.keys.size(1),
                                         .int8 = cache.is_int8()}) &&
         (cache.is_int8() || cache.keys.scalar_type() == q.scalar_type()) &&
         sequences <= kMostDecodeSequences;
}

const float* scales_of(const at::Tensor& scales) {
  return scales.defined() ? scales.const_data_ptr<float>() : nullptr;
}

at::Tensor run_kernel(const at::Tensor& q, const DecodeCache& cache, double scale,
                      const DecodeScratch& scratch) {
  const int64_t sequences = cache.lengths.numel(), tokens = q.size(0) / sequences;
  HALO_CHECK(scratch.parts.numel() >=
                     2 * kDecodeRanges * q.size(1) * tokens * (q.size(2) + kDecodePadding) &&
                 scratch.arrivals.numel() >= sequences * cache.keys.size(2),
             "decode_attention: the scratch is not of {} sequences of {} tokens", sequences,
             tokens);
  const DeviceStream stream(q);
  const at::Tensor o = at::empty_like(q);
  launch_decode_attention({.sequences = sequences,
                           .tokens = tokens,
                           .heads = q.size(1),
                           .kv_heads = cache.keys.size(2),
                           .head_dim = q.size(2),
                           .block_size = cache.keys.size(1),
                           .max_blocks = cache.block_table.size(1),
                           .scale = static_cast<float>(scale),
                           .q = q.const_data_ptr(),
                           .keys = cache.keys.const_data_ptr(),
                           .values = cache.values.const_data_ptr(),
                           .key_scales = scales_of(cache.key_scales),
                           .value_scales = scales_of(cache.value_scales),
                           .block_table = cache.block_table.const_data_ptr<int32_t>(),
                           .lengths = cache.lengths.const_data_ptr<int64_t>(),
                           .parts = scratch.parts.mutable_data_ptr<float>(),
                           .arrivals = scratch.arrivals.mutable_data_ptr<int32_t>(),
                           .o = o.mutable_data_ptr()},
                          stream.handle());
  return o;
}

// Reads the lengths on the host.
at::Tensor composed(const at::Tensor& q, const DecodeCache& cache, double scale, Kernels kernels) {
  const at::Tensor lengths = cache.lengths.cpu();
  const at::Tensor here = lengths.nonzero().flatten();
  const int64_t tokens = q.size(0) / lengths.numel();
  std::vector<int64_t> offsets = {0};
  for (int64_t i = 0; i < here.numel(); ++i) offsets.push_back(offsets.back() + tokens);
  const at::Tensor kept = lengths.index_select(0, here);
  const PagedKeyValue paged{
      cache,
      cache.block_table.cpu().to(at::kLong).index_select(0, here),
      {kept.const_data_ptr<int64_t>(), kept.const_data_ptr<int64_t>() + kept.numel()}};
  const Sequences sequences(std::move(offsets), q.device());
  if (here.numel() == lengths.numel())
    return paged_attention(q, paged, sequences, {.scale = scale, .kernels = kernels});
  const at::Tensor rows =
      (here.unsqueeze(1) * tokens + at::arange(tokens, at::kLong)).flatten().to(q.device());
  return at::zeros_like(q).index_copy_(0, rows,
                                       paged_attention(q.index_select(0, rows), paged, sequences,
                                                       {.scale = scale, .kernels = kernels}));
}

// What is copied ahead in int8 takes up to 206 KB of a block's shared memory; GPUs before Hopper
// have 163 KB at most.
constexpr int64_t kInt8Capability = 9;

}  // namespace

bool has_decode_attention_kernel(const at::Tensor& like, const DecodeShape& shape) {
  return like.scalar_type() == at::kBFloat16 &&
         has_cuda_kernels(CudaKernels::kDecodeAttention, like) &&
         (!shape.int8 || (runs_cuda_kernels(CudaKernels::kInt8Keys) &&
                          compute_capability(like) >= kInt8Capability)) &&
         (shape.head_dim == 64 || shape.head_dim == 128) && shape.rows <= kMostDecodeRows &&
         shape.block_size >= (shape.int8 ? 32 : 16) && is_power_of_two(shape.block_size);
}

DecodeScratch make_decode_scratch(int64_t sequences, int64_t tokens, int64_t heads,
                                  int64_t head_dim, at::Device device) {
  if (!device.is_cuda()) return {};
  const auto options = at::TensorOptions().device(device);
  return {at::empty({2 * kDecodeRanges * tokens * heads * (head_dim + kDecodePadding)},
                    options.dtype(at::kFloat)),
          at::zeros({sequences * heads}, options.dtype(at::kInt))};
}

at::Tensor newest_rows(const DecodeCache& cache, int64_t tokens) {
  const at::NoGradGuard no_grad;
  check(cache);
  const int64_t sequences = cache.lengths.numel(), size = cache.keys.size(1);
  if (cache.lengths.is_cuda() && runs_cuda_kernels(CudaKernels::kDecodeAttention)) {
    const DeviceStream stream(cache.lengths);
    const at::Tensor rows = at::empty({sequences * tokens}, cache.lengths.options());
    launch_newest_rows({.sequences = sequences,
                        .tokens = tokens,
                        .block_size = size,
                        .max_blocks = cache.block_table.size(1),
                        .block_table = cache.block_table.const_data_ptr<int32_t>(),
                        .lengths = cache.lengths.const_data_ptr<int64_t>(),
                        .rows = rows.mutable_data_ptr<int64_t>()},
                       stream.handle());
    return rows;
  }
  const at::Tensor lengths = cache.lengths.unsqueeze(1);
  const at::Tensor token =
      (lengths - tokens + at::arange(tokens, lengths.options())).clamp_min(0);  // [S, tokens]
  const at::Tensor block = cache.block_table.gather(1, at::div(token, size, "floor")).to(at::kLong);
  return at::where(lengths.gt(0), block * size + at::remainder(token, size), -1).flatten();
}

at::Tensor decode_attention(const at::Tensor& q, const DecodeCache& cache, double scale,
                            const DecodeScratch& scratch, Kernels kernels) {
  const at::NoGradGuard no_grad;
  check_queries(q, cache);
  const at::Tensor rows = q.contiguous();
  return has_kernel(rows, cache) ? run_kernel(rows, cache, scale, scratch)
                                 : composed(rows, cache, scale, kernels);
}

}  // namespace halo
