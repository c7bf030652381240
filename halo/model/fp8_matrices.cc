#include "halo/model/fp8_matrices.h"

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/kernels/cuda/cuda_kernels.h"
#include "halo/kernels/linear/linear.h"

namespace halo {
namespace {

void check_device(const at::Tensor& value) {
  if (value.is_cpu()) return;  // as tests run it; recipes are refused
  if (value.scalar_type() != at::kBFloat16 || compute_capability(value) < 9) {
    throw_error(
        "teacher_products = 'fp8': needs bfloat16 and a GPU since Hopper (compute capability 9); "
        "leave it out");
  }
}

}  // namespace

DecoderWeights with_products(TeacherProducts products, const DecoderWeights& teacher) {
  if (products == TeacherProducts::kComputed) return teacher;
  if (teacher.sharing) {
    throw_error(
        "teacher_products = 'fp8': with run.shard = 'full' no rank has the whole teacher; leave "
        "one of the two out");
  }
  check_device(teacher.norm.value);
  DecoderWeights weights = teacher;
  const auto convert = [](Weight& weight) {
    if (weight.defined() && !weight.scale.defined()) weight = to_fp8(weight.value.detach());
  };
  for (LayerWeights& layer : weights.layers) {
    convert(layer.gate_up);
    convert(layer.down);
    if (auto* attention = std::get_if<AttentionWeights>(&layer.mixer)) {
      convert(attention->qkvg);
      convert(attention->biased_gate);
      convert(attention->o_proj);
    } else {
      auto& lightning = std::get<LightningWeights>(layer.mixer);
      convert(lightning.qkvz);
      convert(lightning.o_proj);
    }
  }
  return weights;
}

}  // namespace halo
