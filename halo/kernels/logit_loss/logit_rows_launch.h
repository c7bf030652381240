// The kernels of logit_rows.cu: cross-entropy and KL of rows of logits, and their gradients in
// place. linear_cross_entropy/ and linear_kl/ have the formulas.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

struct CrossEntropyRowsLaunch {
  Element element = Element::kFloat;
  int64_t rows = 0, columns = 0;
  bool gradient = false;             // the logits become d loss / d logits
  void* logits = nullptr;            // [rows, columns]
  const int64_t* targets = nullptr;  // [rows]; -1: ignored. Out of range: the row's loss is NaN.
  const float* weights = nullptr;    // [rows]; null: all 1
  float* losses = nullptr;           // [rows]
};
void launch_cross_entropy_rows(const CrossEntropyRowsLaunch& args, void* stream);

struct KlRowsLaunch {
  Element element = Element::kFloat;
  int64_t rows = 0, columns = 0;
  bool gradient = false;
  void* student = nullptr;           // [rows, columns]
  const void* teacher = nullptr;     // [rows, columns]
  const float* weights = nullptr;    // [rows]; null: all 1
  const int64_t* targets = nullptr;  // [rows], as above; null: no cross-entropy is mixed in
  float cross_entropy_share = 0;
  float* losses = nullptr;  // [rows]
};
void launch_kl_rows(const KlRowsLaunch& args, void* stream);

}  // namespace halo
