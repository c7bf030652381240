// The chunked form on the CPU in fp32 (README.md): one task a (sequence, head), which walks over
// the chunks with the state in the cache. The triangles inside a chunk are computed in strips of
// rows, so little more than half of each is. A task's bits depend on its sequence alone.
#include <cmath>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/lightning/lightning_forms.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "halo/kernels/lightning/lightning_cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h: this is read once a target.
#include "halo/kernels/cpu/tile-inl.h"

#ifndef HALO_KERNELS_LIGHTNING_HEAD_
#define HALO_KERNELS_LIGHTNING_HEAD_
namespace halo {

// One head of one sequence. States are [dk, dv]. Rows of q and d_q, d_k are q_row floats apart, of
// k k_row, of v v_row, of o, d_o and d_v o_row.
struct LightningHead {
  int64_t tokens, dk, dv;
  double slope, scale;
  const float *q, *k, *v;
  int64_t q_row, k_row, v_row, o_row;
  const float* state;  // null: zero
  // Forward alone.
  float *o = nullptr, *final_state = nullptr;
  // Backward alone; d_final null: zero.
  const float *d_o = nullptr, *d_final = nullptr;
  float *d_q = nullptr, *d_k = nullptr, *d_v = nullptr, *d_state = nullptr;
};

}  // namespace halo
#endif

HWY_BEFORE_NAMESPACE();
namespace halo {
namespace HWY_NAMESPACE {

constexpr int64_t kChunk = 64;

// g^n of one head, from fp64.
struct Decays {
  Decays(double slope, double scale) {
    for (int64_t n = 0; n <= kChunk; ++n) {
      power[n] = static_cast<float>(std::exp(-slope * n));
      scaled[n] = static_cast<float>(scale * std::exp(-slope * n));
      loss[n] = static_cast<float>(-std::expm1(-slope * n));
    }
    for (int64_t n = 0; n < kChunk; ++n) mask[kChunk - 1 - n] = scaled[n];
  }
  // scale * g^(i-j) of row i for j = 0, 1, ...; 0 where j > i.
  const float* mask_row(int64_t i) const { return mask + kChunk - 1 - i; }

  float power[kChunk + 1], scaled[kChunk + 1], loss[kChunk + 1];  // loss: 1 - g^n
  float mask[2 * kChunk] = {};
};

// x = g^n x as x - (1 - g^n) x, for rounding g^n itself would add up from chunk to chunk.
HWY_INLINE void decay(float* x, int64_t count, float loss) {
  for_columns(count, [&](auto d, int64_t c) HWY_ATTR {
    const auto v = hn::LoadU(d, x + c);
    hn::StoreU(hn::NegMulAdd(v, hn::Set(d, loss), v), d, x + c);
  });
}

// Row i times factors[i] (backwards: factors[n-1-i]).
HWY_INLINE void scale_rows(float* x, int64_t n, int64_t width, const float* factors,
                           bool backwards = false) {
  for (int64_t i = 0; i < n; ++i) scale(x + i * width, width, factors[backwards ? n - 1 - i : i]);
}

// Rows [first, first + rows) of (a b) * mask into weights [., kChunk]; a [n, k], b [k, kChunk].
HWY_INLINE void masked_strip(const float* a, const float* b, int64_t k, int64_t width,
                             const Decays& decays, int64_t first, int64_t rows, float* weights) {
  const int64_t columns = padded(first + rows);
  float* out = weights + first * kChunk;
  product<false>({a + first * width, width, 1, b, kChunk, out, kChunk, rows, columns, k});
  for (int64_t i = 0; i < rows; ++i) {
    const float* mask = decays.mask_row(first + i);
    for_columns(columns, [&](auto d, int64_t c) HWY_ATTR {
      float* x = out + i * kChunk + c;
      hn::StoreU(hn::Mul(hn::LoadU(d, x), hn::LoadU(d, mask + c)), d, x);
    });
  }
}

void lightning_head(const LightningHead& t) {
  const int64_t dk = t.dk, dv = t.dv, wk = padded(dk), wv = padded(dv);
  const Decays decays(t.slope, t.scale);
  std::vector<float> q(kChunk * wk), k(kChunk * wk), kt(wk * kChunk), v(kChunk * wv),
      o(kChunk * wv), weights(kChunk * kChunk), state(wk * wv);
  if (t.state) pack(t.state, dv, dk, dv, 1, state.data());
  for (int64_t begin = 0; begin < t.tokens; begin += kChunk) {
    const int64_t n = std::min(kChunk, t.tokens - begin);
    pack(t.q + begin * t.q_row, t.q_row, n, dk, 1, q.data());
    pack(t.k + begin * t.k_row, t.k_row, n, dk, 1, k.data());
    pack(t.v + begin * t.v_row, t.v_row, n, dv, 1, v.data());
    transpose(k.data(), padded(n), wk, kt.data(), kChunk);
    product<false>({q.data(), wk, 1, state.data(), wv, o.data(), wv, n, wv, dk});
    scale_rows(o.data(), n, wv, decays.scaled + 1);
    for (int64_t i = 0; i < n; i += kStrip) {
      const int64_t rows = std::min(kStrip, n - i);
      masked_strip(q.data(), kt.data(), dk, wk, decays, i, rows, weights.data());
      product<true>({weights.data() + i * kChunk, kChunk, 1, v.data(), wv, o.data() + i * wv, wv,
                     rows, wv, i + rows});
    }
    unpack(o.data(), n, dv, 1, t.o + begin * t.o_row, t.o_row);
    scale_rows(k.data(), n, wk, decays.power, true);
    decay(state.data(), dk * wv, decays.loss[n]);
    product<true>({k.data(), 1, wk, v.data(), wv, state.data(), wv, dk, wv, n});
  }
  unpack(state.data(), dk, dv, 1, t.final_state, dv);
}

// The transposed states [dv, wk] entering each chunk, one after the other.
std::vector<float> entering_states(const LightningHead& t, const Decays& decays) {
  const int64_t wk = padded(t.dk), wv = padded(t.dv), size = wv * wk;
  const int64_t chunks = (t.tokens + kChunk - 1) / kChunk;
  std::vector<float> states(chunks * size), k(kChunk * wk), v(kChunk * wv);
  if (t.state) {
    std::vector<float> state(wk * wv);
    pack(t.state, t.dv, t.dk, t.dv, 1, state.data());
    transpose(state.data(), wk, wv, states.data(), wk);
  }
  for (int64_t c = 0; c + 1 < chunks; ++c) {
    float* next = states.data() + (c + 1) * size;
    std::copy(next - size, next, next);
    pack(t.k + c * kChunk * t.k_row, t.k_row, kChunk, t.dk, 1, k.data());
    pack(t.v + c * kChunk * t.v_row, t.v_row, kChunk, t.dv, 1, v.data());
    scale_rows(k.data(), kChunk, wk, decays.power, true);
    decay(next, size, decays.loss[kChunk]);
    product<true>({v.data(), 1, wv, k.data(), wk, next, wk, t.dv, wk, kChunk});
  }
  return states;
}

void lightning_backward_head(const LightningHead& t) {
  const int64_t dk = t.dk, dv = t.dv, wk = padded(dk), wv = padded(dv);
  const Decays decays(t.slope, t.scale);
  const std::vector<float> states = entering_states(t, decays);
  std::vector<float> q(kChunk * wk), k(kChunk * wk), kt(wk * kChunk), v(kChunk * wv),
      vt(wv * kChunk), d(kChunk * wv), weights(kChunk * kChunk), d_weights(kChunk * kChunk),
      leaving(wk * wv), leaving_t(wv * wk), d_k(kChunk * wk), d_v(kChunk * wv);
  if (t.d_final) pack(t.d_final, dv, dk, dv, 1, leaving.data());
  for (int64_t begin = (t.tokens - 1) / kChunk * kChunk; begin >= 0; begin -= kChunk) {
    const int64_t n = std::min(kChunk, t.tokens - begin);
    pack(t.q + begin * t.q_row, t.q_row, n, dk, 1, q.data());
    pack(t.k + begin * t.k_row, t.k_row, n, dk, 1, k.data());
    pack(t.v + begin * t.v_row, t.v_row, n, dv, 1, v.data());
    pack(t.d_o + begin * t.o_row, t.o_row, n, dv, 1, d.data());
    transpose(k.data(), padded(n), wk, kt.data(), kChunk);
    transpose(v.data(), padded(n), wv, vt.data(), kChunk);
    transpose(leaving.data(), wk, wv, leaving_t.data(), wk);
    // Through the state that leaves the chunk.
    product<false>({k.data(), wk, 1, leaving.data(), wv, d_v.data(), wv, n, wv, dk});
    scale_rows(d_v.data(), n, wv, decays.power, true);
    product<false>({v.data(), wv, 1, leaving_t.data(), wk, d_k.data(), wk, n, wk, dv});
    scale_rows(d_k.data(), n, wk, decays.power, true);
    // Through the products inside the chunk.
    for (int64_t i = 0; i < n; i += kStrip) {
      const int64_t rows = std::min(kStrip, n - i);
      masked_strip(q.data(), kt.data(), dk, wk, decays, i, rows, weights.data());
      masked_strip(d.data(), vt.data(), dv, wv, decays, i, rows, d_weights.data());
    }
    for (int64_t j = 0; j < n; j += kStrip) {
      const int64_t columns = std::min(kStrip, n - j), corner = j * kChunk + j;
      product<true>({weights.data() + corner, 1, kChunk, d.data() + j * wv, wv, d_v.data() + j * wv,
                     wv, columns, wv, n - j});
      product<true>({d_weights.data() + corner, 1, kChunk, q.data() + j * wk, wk,
                     d_k.data() + j * wk, wk, columns, wk, n - j});
    }
    unpack(d_k.data(), n, dk, 1, t.d_k + begin * t.q_row, t.q_row);
    unpack(d_v.data(), n, dv, 1, t.d_v + begin * t.o_row, t.o_row);
    // The gradient of q, in the place of that of k.
    const float* entering = states.data() + begin / kChunk * wv * wk;
    float* d_q = d_k.data();
    product<false>({d.data(), wv, 1, entering, wk, d_q, wk, n, wk, dv});
    scale_rows(d_q, n, wk, decays.scaled + 1);
    for (int64_t i = 0; i < n; i += kStrip) {
      const int64_t rows = std::min(kStrip, n - i);
      product<true>({d_weights.data() + i * kChunk, kChunk, 1, k.data(), wk, d_q + i * wk, wk, rows,
                     wk, i + rows});
    }
    unpack(d_q, n, dk, 1, t.d_q + begin * t.q_row, t.q_row);
    scale_rows(q.data(), n, wk, decays.scaled + 1);
    decay(leaving.data(), dk * wv, decays.loss[n]);
    product<true>({q.data(), 1, wk, d.data(), wv, leaving.data(), wv, dk, wv, n});
  }
  unpack(leaving.data(), dk, dv, 1, t.d_state, dv);
}

}  // namespace HWY_NAMESPACE
}  // namespace halo
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halo {

HWY_EXPORT(lightning_head);
HWY_EXPORT(lightning_backward_head);

namespace {

const float* data_or_null(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<float>() : nullptr;
}

// Places in the tensors of one (sequence, head).
struct Place {
  int64_t q, o, k, v, state;
};

// run(head's inputs, its places) for every sequence that has tokens, and every head.
template <class Run>
void for_heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
               const at::Tensor& state, const LightningArgs& args, const Sequences& sequences,
               const Run& run) {
  const int64_t heads = q.size(1), groups = k.size(1), dk = q.size(2), dv = v.size(2);
  const float *q_data = q.const_data_ptr<float>(), *k_data = k.const_data_ptr<float>(),
              *v_data = v.const_data_ptr<float>(), *states = data_or_null(state);
  at::parallel_for(0, sequences.count() * heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t s = task / heads, h = task % heads, token = sequences.offsets()[s];
      if (sequences.length(s) == 0) continue;
      const int64_t q_head = token * heads + h;
      const int64_t kv_head = token * groups + h / (heads / groups);
      const Place at{q_head * dk, q_head * dv, kv_head * dk, kv_head * dv, task * dk * dv};
      run(LightningHead{sequences.length(s), dk, dv, args.slopes[h], args.scale, q_data + at.q,
                        k_data + at.k, v_data + at.v, heads * dk, groups * dk, groups * dv,
                        heads * dv, states ? states + at.state : nullptr},
          at);
    }
  });
}

// x [N, H, d] summed over the heads that share one of G.
at::Tensor sum_heads(const at::Tensor& x, int64_t groups) {
  if (x.size(1) == groups) return x;
  return x.view({x.size(0), groups, x.size(1) / groups, x.size(2)}).sum(2);
}

// States before the sequences, for those without tokens to keep.
at::Tensor states_like(const at::Tensor& state, int64_t sequences, const LightningArgs& args) {
  if (state.defined()) return state.clone(at::MemoryFormat::Contiguous);
  return at::zeros({sequences, args.q.size(1), args.q.size(2), args.v.size(2)}, args.q.options());
}

}  // namespace

LightningResult lightning_cpu(const LightningArgs& args, const Sequences& sequences) {
  const at::Tensor q = args.q.contiguous(), k = args.k.contiguous(), v = args.v.contiguous();
  const at::Tensor state = args.state.defined() ? args.state.contiguous() : args.state;
  LightningResult out{at::empty({q.size(0), q.size(1), v.size(2)}, q.options()),
                      states_like(state, sequences.count(), args)};
  float *o = out.o.mutable_data_ptr<float>(), *states = out.state.mutable_data_ptr<float>();
  for_heads(q, k, v, state, args, sequences, [&](LightningHead head, const Place& at) {
    head.o = o + at.o;
    head.final_state = states + at.state;
    HWY_DYNAMIC_DISPATCH(lightning_head)(head);
  });
  return out;
}

LightningGradients lightning_cpu_backward(const LightningArgs& args, const Sequences& sequences,
                                          const at::Tensor& d_o, const at::Tensor& d_state) {
  const at::Tensor q = args.q.contiguous(), k = args.k.contiguous(), v = args.v.contiguous();
  const at::Tensor state = args.state.defined() ? args.state.contiguous() : args.state;
  const at::Tensor d_final = d_state.defined() ? d_state.contiguous() : d_state;
  const std::vector<int64_t> shape{q.size(0), q.size(1), v.size(2)};
  const at::Tensor d_out = d_o.defined() ? d_o.contiguous() : at::zeros(shape, q.options());
  LightningGradients out{at::empty_like(q), at::empty_like(q), at::empty(shape, q.options()),
                         states_like(d_final, sequences.count(), args)};
  const float *d_o_data = d_out.const_data_ptr<float>(), *d_finals = data_or_null(d_final);
  float *d_q = out.q.mutable_data_ptr<float>(), *d_k = out.k.mutable_data_ptr<float>(),
        *d_v = out.v.mutable_data_ptr<float>(), *d_states = out.state.mutable_data_ptr<float>();
  for_heads(q, k, v, state, args, sequences, [&](LightningHead head, const Place& at) {
    head.d_o = d_o_data + at.o;
    head.d_final = d_finals ? d_finals + at.state : nullptr;
    head.d_q = d_q + at.q;
    head.d_k = d_k + at.q;
    head.d_v = d_v + at.o;
    head.d_state = d_states + at.state;
    HWY_DYNAMIC_DISPATCH(lightning_backward_head)(head);
  });
  out.k = sum_heads(out.k, k.size(1));
  out.v = sum_heads(out.v, k.size(1));
  return out;
}

}  // namespace halo
#endif  // HWY_ONCE
