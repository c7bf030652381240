// How users have an engine keep sequences and compute.
#pragma once

#include "halo/base/settings.h"

namespace halo {

// Of stored keys and values: the type that they are computed in, or int8 with scales.
enum class KvType { kComputed, kInt8 };
inline constexpr Word<KvType> kKvTypes[] = {{"auto", KvType::kComputed}, {"int8", KvType::kInt8}};

struct EngineRecipe {
  KvType kv_type = KvType::kComputed;
  bool invariant = false;

  void settings(Settings& s) {
    s("kv_type", kv_type, kKvTypes,
      {.help = "stored keys and values: in the type that they are computed in (auto), or int8 with "
               "a scale for each token and head"});
    s("invariant", invariant,
      {.help = "the same bits whatever runs beside a request and however its prompt is cut, reused "
               "or drafted for; slower, on a CPU only"});
  }
};

}  // namespace halo
