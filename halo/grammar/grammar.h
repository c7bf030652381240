// Which tokens a text of a given format may go on with, by XGrammar.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "halo/grammar/format.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {

// A model's tokens as text is made of them.
struct GrammarTokens {
  std::vector<std::string> bytes;  // of every row of the model's logits; empty: never in a text
  std::vector<int64_t> ends;       // of which one follows a text that is whole
};
// Special tokens are no text, but for `shown`.
GrammarTokens grammar_tokens(const Tokenizer& tokenizer, int64_t vocabulary,
                             const std::vector<int64_t>& ends, const std::set<int64_t>& shown = {});

class Grammar {
 public:
  struct Impl;
  explicit Grammar(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

class GrammarCompiler {
 public:
  explicit GrammarCompiler(const GrammarTokens& tokens);
  ~GrammarCompiler();

  // Safe from many threads at once; the last ones are kept, so that the same format again costs
  // nothing. An Error where no text can be of the format, or the build has no grammars.
  Grammar compile(const TextFormat& format) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One text as it grows.
class GrammarMatcher {
 public:
  explicit GrammarMatcher(const Grammar& grammar);
  GrammarMatcher(GrammarMatcher&&) noexcept;
  ~GrammarMatcher();

  // Leaves the bits of tokens that may come next: token i's is bit i % 32 of word i / 32.
  void mask(std::span<uint32_t> allowed);
  // An Error where mask() does not leave it.
  void accept(int64_t token);
  // Of a model without end tokens: the text is whole.
  bool ended() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo
