// One declaration of a settings struct serves TOML, --set, JSON and help.
//
//   struct AlignRecipe {
//     int64_t tokens = 500'000;
//     double learning_rate = 1e-3;
//     template <class V> void fields(V& v) {
//       v("tokens", tokens, "training tokens");
//       v("learning_rate", learning_rate, "peak rate");
//     }
//   };
//
// Members: bool, int64_t, double, std::string, std::vector of these, std::map<std::string, double>,
// and structs with fields() (a TOML table). Enums are strings here and become enums in `formats` or
// the part that owns them.
#pragma once

#include <toml++/toml.h>

#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "halo/base/check.h"
#include "halo/base/json.h"

namespace halo {

// The candidate nearest to `word` by edit distance, for "unknown key 'x'; did you mean 'y'?".
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

toml::table parse_toml(const std::string& text, const std::string& file);

// `file` is used in messages only. Unknown keys, wrong kinds and integers out of range are Errors
// that name file, line and key ("recipes/x.toml:12: align.tokns: unknown key; did you mean
// 'tokens'?").
template <class T>
void read_fields(T& object, const toml::table& table, const std::string& file);

// "align.tokens=1000": the value is read as TOML, or as a bare string where it is none.
template <class T>
void set_field(T& object, std::string_view assignment);

template <class T>
json::object fields_to_json(const T& object);

// The object as TOML text that read_fields reads back to equal values.
template <class T>
std::string fields_to_toml(const T& object);

// "align.tokens  (500000)  training tokens" a line each.
template <class T>
std::string fields_help(const T& object, std::string_view prefix = "");

}  // namespace halo

#include "halo/base/fields_inl.h"
