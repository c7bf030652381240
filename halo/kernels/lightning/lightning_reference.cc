// The recurrence as it is written, one task a (sequence, head): the reference, and on the CPU also
// what decoding runs, where it is bound by reading and writing the state once a token.

#include <algorithm>
#include <cmath>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "halo/kernels/lightning/lightning_forms.h"

namespace halo {
namespace {

// state [dk, dv] becomes (1 - loss) * state + k v^T; o [dv] = scale * state^T q. loss = 1 - g, not
// g, because the rounding error of g = 0.996 would grow with every token.
void step(float* state, const float* q, const float* k, const float* v, float* o, float loss,
          float scale, int64_t dk, int64_t dv) {
  std::fill(o, o + dv, 0.0F);
  for (int64_t i = 0; i < dk; ++i) {
    float* row = state + i * dv;
    const float key = k[i];
    const float query = q[i];
    for (int64_t j = 0; j < dv; ++j) {
      row[j] += key * v[j] - loss * row[j];
      o[j] += query * row[j];
    }
  }
  for (int64_t j = 0; j < dv; ++j) o[j] *= scale;
}

}  // namespace

LightningResult lightning_reference(const LightningArgs& args, const Sequences& sequences) {
  const auto q = args.q.to(at::kFloat).contiguous();
  const auto k = args.k.to(at::kFloat).contiguous();
  const auto v = args.v.to(at::kFloat).contiguous();
  const int64_t heads = q.size(1), groups = k.size(1), dk = q.size(2), dv = v.size(2);
  const int64_t repeat = heads / groups;
  LightningResult out;
  out.o = at::empty({q.size(0), heads, dv}, q.options());
  out.state = args.state.defined() ? args.state.contiguous().clone()
                                   : at::zeros({sequences.count(), heads, dk, dv}, q.options());
  const float *q_data = q.const_data_ptr<float>(), *k_data = k.const_data_ptr<float>(),
              *v_data = v.const_data_ptr<float>();
  const at::Tensor decays = args.log_decay.defined() ? args.log_decay.contiguous() : at::Tensor();
  const double* log_decay = decays.defined() ? decays.const_data_ptr<double>() : nullptr;
  float *o_data = out.o.mutable_data_ptr<float>(), *states = out.state.mutable_data_ptr<float>();
  at::parallel_for(0, sequences.count() * heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t s = task / heads, h = task % heads;
      auto loss = static_cast<float>(-std::expm1(-args.slopes[h]));
      for (int64_t t = sequences.offsets()[s]; t < sequences.offsets()[s + 1]; ++t) {
        const int64_t q_row = t * heads + h, kv_row = t * groups + h / repeat;
        if (log_decay) loss = static_cast<float>(-std::expm1(log_decay[t * heads + h]));
        step(states + task * dk * dv, q_data + q_row * dk, k_data + kv_row * dk,
             v_data + kv_row * dv, o_data + q_row * dv, loss, static_cast<float>(args.scale), dk,
             dv);
      }
    }
  });
  out.o = out.o.to(args.q.scalar_type());
  return out;
}

}  // namespace halo
