// The kernels of embedding.cu: the gradient of the table from token ids in ascending order.
#pragma once

#include "halo/kernels/cuda/launch.h"

namespace halo {

// Places of the sorted ids that one block sums. A number of the length alone decides the order of
// sums: within a chunk, then over the chunks that an id reaches into.
inline constexpr int64_t kEmbeddingChunk = 32;

inline int64_t embedding_chunks(int64_t tokens) {
  return (tokens + kEmbeddingChunk - 1) / kEmbeddingChunk;
}

struct EmbeddingLaunch {
  Element element = Element::kFloat;  // of dy
  int64_t tokens = 0, columns = 0;
  const int64_t* ids = nullptr;  // [tokens] ascending
  const int64_t* order =
      nullptr;               // [tokens]: ids[i] is the id of token order[i]; ascending within an id
  const void* dy = nullptr;  // [tokens, columns], in the tokens' own order
  float* edges = nullptr;    // [embedding_chunks(tokens), 2, columns], scratch
  float* grad = nullptr;     // [V, columns]; grad[id] += sum of dy over the id's tokens
};

void launch_embedding_gradient(const EmbeddingLaunch& args, void* stream);

}  // namespace halo
