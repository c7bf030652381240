#include "halo/grammar/grammar.h"

#include <algorithm>
#include <iterator>

#include "halo/base/check.h"

#ifdef HALO_HAVE_GRAMMAR
#include <xgrammar/xgrammar.h>
#endif

namespace halo {

GrammarTokens grammar_tokens(const Tokenizer& tokenizer, int64_t vocabulary,
                             const std::vector<int64_t>& ends, const std::set<int64_t>& shown) {
  GrammarTokens out{std::vector<std::string>(static_cast<size_t>(vocabulary)), {}};
  std::ranges::copy_if(ends, std::back_inserter(out.ends),
                       [&](int64_t id) { return id >= 0 && id < vocabulary; });
  for (int64_t id = 0; id < std::min(vocabulary, tokenizer.vocab_size()); ++id) {
    if (!tokenizer.is_special(id) || shown.contains(id))
      out.bytes[static_cast<size_t>(id)] = tokenizer.token_bytes(id);
  }
  return out;
}

#ifdef HALO_HAVE_GRAMMAR

struct Grammar::Impl {
  xgrammar::CompiledGrammar compiled;
  bool has_ends;
  // Words of tokens that may come at all; null: all.
  std::shared_ptr<const std::vector<uint32_t>> allowed;
};

namespace {

constexpr int64_t kCacheBytes = int64_t{256} << 20;

// Without where in its sources XGrammar noticed: "[12:00:00] /path/x.cc:5: Check failed: (a):
// what".
std::string said_by(const std::exception& error) {
  std::string text = error.what();
  text = text.substr(0, text.find('\n'));
  if (const size_t place = text.find(".cc:"); place != std::string::npos) {
    const size_t colon = text.find(": ", place);
    if (colon != std::string::npos) text.erase(0, colon + 2);
  }
  return text;
}

xgrammar::TokenizerInfo info_of(const GrammarTokens& tokens) {
  return xgrammar::TokenizerInfo(tokens.bytes, xgrammar::VocabType::RAW,
                                 static_cast<int>(tokens.bytes.size()),
                                 std::vector<int32_t>(tokens.ends.begin(), tokens.ends.end()));
}

// XGrammar lets control characters into strings whose length is limited, where JSON has none. Ends
// of lines it does not.
std::vector<uint32_t> words_without_controls(const GrammarTokens& tokens) {
  std::vector<uint32_t> out((tokens.bytes.size() + 31) / 32, ~uint32_t{0});
  for (size_t id = 0; id < tokens.bytes.size(); ++id) {
    const bool has_control = std::ranges::any_of(
        tokens.bytes[id], [](unsigned char c) { return c < ' ' && c != '\n' && c != '\r'; });
    if (has_control) out[id / 32] &= ~(uint32_t{1} << id % 32);
  }
  return out;
}

bool limits_lengths(const json::value& tree) {
  if (const auto* list = tree.if_array()) return std::ranges::any_of(*list, limits_lengths);
  const auto* object = tree.if_object();
  if (object == nullptr) return false;
  return object->contains("minLength") || object->contains("maxLength") ||
         std::ranges::any_of(*object,
                             [](const auto& member) { return limits_lengths(member.value()); });
}

}  // namespace

struct GrammarCompiler::Impl {
  bool has_ends;
  std::shared_ptr<const std::vector<uint32_t>> without_controls;
  mutable xgrammar::GrammarCompiler compiler;  // locks itself
};

GrammarCompiler::GrammarCompiler(const GrammarTokens& tokens)
    : impl_(std::make_unique<Impl>(
          Impl{!tokens.ends.empty(),
               std::make_shared<const std::vector<uint32_t>>(words_without_controls(tokens)),
               xgrammar::GrammarCompiler(info_of(tokens), /*max_threads=*/1,
                                         /*cache_enabled=*/true, kCacheBytes)})) {}

Grammar GrammarCompiler::compile(const TextFormat& format) const {
  const json::object tag{{"type", "structural_tag"}, {"format", format.tree}};
  try {
    return Grammar(std::make_shared<const Grammar::Impl>(
        Grammar::Impl{impl_->compiler.CompileStructuralTag(json::serialize(tag)), impl_->has_ends,
                      limits_lengths(tag) ? impl_->without_controls : nullptr}));
  } catch (const std::exception& error) {
    throw_error("no grammar can be made of it: {}", said_by(error));
  }
}

struct GrammarMatcher::Impl {
  xgrammar::GrammarMatcher matcher;
  std::shared_ptr<const std::vector<uint32_t>> allowed;
};

GrammarMatcher::GrammarMatcher(const Grammar& grammar)
    : impl_(std::make_unique<Impl>(
          Impl{xgrammar::GrammarMatcher(grammar.impl().compiled, std::nullopt,
                                        /*terminate_without_stop_token=*/!grammar.impl().has_ends),
               grammar.impl().allowed})) {}

void GrammarMatcher::mask(std::span<uint32_t> allowed) {
  auto size = static_cast<int64_t>(allowed.size());
  DLTensor tensor{.data = allowed.data(),
                  .device = {kDLCPU, 0},
                  .ndim = 1,
                  .dtype = xgrammar::GetBitmaskDLType(),
                  .shape = &size,
                  .strides = nullptr,
                  .byte_offset = 0};
  impl_->matcher.FillNextTokenBitmask(&tensor);
  if (!impl_->allowed) return;
  for (size_t i = 0; i < allowed.size(); ++i) allowed[i] &= (*impl_->allowed)[i];
}

void GrammarMatcher::accept(int64_t token) {
  if (!impl_->matcher.AcceptToken(static_cast<int32_t>(token)))
    throw_error("token {} is not of the answer's grammar", token);
}

bool GrammarMatcher::ended() const {
  return impl_->matcher.IsTerminated();
}

#else

struct Grammar::Impl {};
struct GrammarCompiler::Impl {};
struct GrammarMatcher::Impl {};

GrammarCompiler::GrammarCompiler(const GrammarTokens&) {}

Grammar GrammarCompiler::compile(const TextFormat&) const {
  throw_error("this build of halo has no grammars (HALO_GRAMMAR=OFF)");
}

GrammarMatcher::GrammarMatcher(const Grammar&) {}
void GrammarMatcher::mask(std::span<uint32_t>) {}
void GrammarMatcher::accept(int64_t) {}
bool GrammarMatcher::ended() const {
  return false;
}

#endif

GrammarCompiler::~GrammarCompiler() = default;
GrammarMatcher::GrammarMatcher(GrammarMatcher&&) noexcept = default;
GrammarMatcher::~GrammarMatcher() = default;

}  // namespace halo
