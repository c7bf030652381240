// Attention of sequences' newest tokens to all that is stored, as a recorded step runs it: tables
// and lengths are on the device, and the host reads nothing.
#pragma once

#include "halo/kernels/common/key_values.h"
#include "halo/kernels/common/sequences.h"

namespace halo {

// Where a call leaves parts of its sums for a moment, its own at a time on one stream.
struct DecodeScratch {
  at::Tensor parts;     // fp32
  at::Tensor arrivals;  // int32 zeros, before a call and after it
};

// The keys and values of all sequences, as blocks found through a table. On a GPU their size is a
// power of two from 16 on; in int8 from 32 on, and the GPU is of compute capability 9.0 or later.
struct DecodeCache : KeyValueBlocks {
  at::Tensor block_table;  // [S, max_blocks] int32: token t is in block [s][t / block_size]
  at::Tensor lengths;      // [S] int64: tokens stored, the newest included; 0: no sequence here
};

// Of calls for `sequences` sequences of `tokens` new tokens with H query heads of size d.
DecodeScratch make_decode_scratch(int64_t sequences, int64_t tokens, int64_t heads,
                                  int64_t head_dim, at::Device device);

// What a kernel is asked to take.
struct DecodeShape {
  int64_t rows = 1;  // query heads of a key head times new tokens
  int64_t head_dim = 0, block_size = 0;
  bool int8 = false;  // the keys and values
};
// Whether calls with queries like these are the kernel, which reads nothing on the host.
bool has_decode_attention_kernel(const at::Tensor& like, const DecodeShape& shape);

// Where the newest `tokens` tokens of every sequence are stored, as rows of keys.flatten(0, 1):
// [S tokens] int64, -1 for sequences that are not there.
at::Tensor newest_rows(const DecodeCache& cache, int64_t tokens);

// The last n stored tokens of every sequence are its queries: q [S n, H, d] -> [S n, H, d]; query i
// of a sequence of length L sees its first L - n + i + 1 tokens. Rows of sequences that are not
// there have any value. No gradients.
// On a GPU with queries in bf16 one kernel reads every key and value once for all query heads and
// tokens that share them (up to 8 rows); its grid does not depend on lengths, so one recording
// serves all. All sequences' tokens are shared out evenly, so where a sequence is cut depends on
// the others too: the same call gives the same bits, the same sequence among others close ones. The
// kernel right before a call may write queries and the newest keys and values; older ones it must
// not.
at::Tensor decode_attention(const at::Tensor& q, const DecodeCache& cache, double scale,
                            const DecodeScratch& scratch, Kernels kernels);

}  // namespace halo
