// Settings are declared once: a struct lists its members, and from the list come TOML, --set,
// JSON, help (settings_io.h) and command-line options (options.h).
//
//   enum class Rule { kJoint, kEven };
//   inline constexpr Word<Rule> kRules[] = {{"joint", Rule::kJoint}, {"even", Rule::kEven}};
//
//   struct SelectRecipe {
//     Rule rule = Rule::kJoint;
//     int64_t keep = 0;
//     void settings(Settings& s) {
//       s("rule", rule, kRules, {.help = "how the layers are chosen"});
//       s("keep", keep, {.help = "layers that keep attention; 0: a quarter", .max = 10'000});
//     }
//   };
//
// Members: bool, int64_t, double, std::string, vectors of the last three, whatever has a table of
// words, and structs that list settings of their own (a TOML table).
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace halo {

// What another value changes in a run that goes on from a checkpoint.
enum class Effect {
  kResult,   // its weights or figures
  kBatches,  // even which tokens a step reads, so that a checkpoint's step means something else
  kNone,     // time, memory, what is checked or kept on the way
};

struct About {
  std::string_view help;
  // Inclusive; of a number, or of each number of a list.
  double min = 0, max = std::numeric_limits<double>::infinity();
  Effect effect = Effect::kResult;
  std::string_view was = {};  // the name it had, still read
};

// The most that a count can be: 2^53, up to which a double is exact.
inline constexpr double kMaxCount = 9'007'199'254'740'992;

// What a value is called. `was`: the word it had, still read.
template <class E>
struct Word {
  std::string_view word;
  E value;
  std::string_view was = {};
};
template <class E>
using Words = std::span<const Word<E>>;

template <class E>
std::string_view word_of(std::type_identity_t<Words<E>> words, const E& value) {
  for (const Word<E>& word : words) {
    if (word.value == value) return word.word;
  }
  return "?";
}

// A member that is one of a table of words, by its place in the table.
struct Choice {
  std::vector<std::string_view> words, was;
  std::function<size_t()> get;
  std::function<void(size_t)> set;
};

struct Setting {
  using Value = std::variant<bool*, int64_t*, double*, std::string*, std::vector<int64_t>*,
                             std::vector<double>*, std::vector<std::string>*, Choice>;
  std::string key;  // "align.tokens"
  std::string was;  // the whole key it had; empty: always this one
  Value value;
  About about;  // `effect` includes that of the sections around it
};

class Settings;
template <class T>
concept HasSettings = requires(T object, Settings& settings) {
  object.settings(settings);
};
template <class T>
concept IsSetting = std::is_constructible_v<Setting::Value, T*>;

// The settings of an object, those of its sections among them. Refers to the object.
class Settings {
 public:
  template <IsSetting T>
  void operator()(std::string_view name, T& member, const About& about) {
    add(name, &member, about);
  }
  template <class E>
  void operator()(std::string_view name, E& member, std::type_identity_t<Words<E>> words,
                  const About& about) {
    Choice choice;
    for (const Word<E>& word : words) {
      choice.words.push_back(word.word);
      choice.was.push_back(word.was);
    }
    choice.get = [&member, words] {
      size_t i = 0;
      while (i < words.size() && !(words[i].value == member)) ++i;
      return i;
    };
    choice.set = [&member, words](size_t i) { member = words[i].value; };
    add(name, std::move(choice), about);
  }
  template <HasSettings T>
  void operator()(std::string_view name, T& section, const About& about) {
    const Place outside = enter(name, about);
    section.settings(*this);
    place_ = outside;
  }

  const std::vector<Setting>& all() const& { return all_; }
  std::vector<Setting> all() && { return std::move(all_); }  // for (... : settings_of(x).all())
  // By its key or, `was`, by a key it had; null where there is none.
  const Setting* find(std::string_view key) const;
  const Setting* find_old(std::string_view was) const;

 private:
  // The section that is being listed.
  struct Place {
    std::string prefix, old_prefix;
    Effect effect = Effect::kResult;
  };
  Place enter(std::string_view name, const About& about);  // returns the place outside
  void add(std::string_view name, Setting::Value value, const About& about);

  std::vector<Setting> all_;
  Place place_;
};

template <HasSettings T>
Settings settings_of(T& object) {
  Settings settings;
  object.settings(settings);
  return settings;
}

}  // namespace halo
