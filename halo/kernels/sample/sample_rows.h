// The next token of every row of logits, chosen on the device by settings that lie there too, one a
// row: what a recorded step ends with (README.md has the order of things).
#pragma once

#include <ATen/core/Tensor.h>

namespace halo {

struct SampleRows {
  at::Tensor temperature;  // [S] fp32; 0: greedy
  at::Tensor top_p;        // [S] fp32 in (0, 1]
  at::Tensor min_p;        // [S] fp32 in [0, 1]: of the most likely token's probability
  at::Tensor top_k;        // [S] int64; 0: all
  at::Tensor streams;      // [S, 2] int64: Philox4x32-10's key and upper half of its counter
  at::Tensor positions;    // [S] int64: the lower half: which number of the stream is drawn
};

struct SampledRows {
  at::Tensor tokens;             // [S] int64
  at::Tensor log_probabilities;  // [S] fp32: of the tokens in softmax(logits)
};

// logits [S, V] fp32. Settings are not checked. A row's result depends on no other row.
SampledRows sample_rows(const at::Tensor& logits, const SampleRows& rows);

}  // namespace halo
