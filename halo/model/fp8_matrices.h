// Weights of a frozen model whose forward passes alone are run, for a GPU with products in fp8.
#pragma once

#include "halo/model/decoder.h"

namespace halo {

// What a frozen teacher's products run in.
enum class TeacherProducts { kComputed, kFp8 };
inline constexpr Word<TeacherProducts> kTeacherProducts[] = {
    {"computed", TeacherProducts::kComputed}, {"fp8", TeacherProducts::kFp8}};

// `teacher`, or with kFp8 the same model with every layer's matrices in fp8 (linear.h), beside
// those that there are; the embedding and the head stay. An Error where this device has no such
// products, and where ranks have the weights between them.
DecoderWeights with_products(TeacherProducts products, const DecoderWeights& teacher);

}  // namespace halo
