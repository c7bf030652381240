#include "halo/tokenizer/pre_tokenize.h"

#include <algorithm>

#include "halo/base/utf8.h"
#include "halo/tokenizer/unicode.h"

namespace halo {
namespace {

struct Span {
  size_t begin, end;
  bool match;
};

// The whole text as matches of the pattern and what is between them, in order.
std::vector<Span> find_spans(std::string_view text, const Split& split) {
  std::vector<Span> spans;
  size_t done = 0;
  const auto add_match = [&](size_t begin, size_t end) {
    if (begin > done) spans.push_back({done, begin, split.invert});
    spans.push_back({begin, end, !split.invert});
    done = end;
  };
  if (const auto* pattern = std::get_if<Pattern>(&split.pattern)) {
    while (done < text.size()) add_match(done, piece_end(*pattern, text, done));
  } else if (const auto* regex = std::get_if<Regex>(&split.pattern)) {
    regex->for_each_match(text, add_match);
  } else {
    const auto& literal = std::get<std::string>(split.pattern);
    for (size_t at = text.find(literal); at != text.npos; at = text.find(literal, done))
      add_match(at, at + literal.size());
  }
  if (done < text.size()) spans.push_back({done, text.size(), split.invert});
  return spans;
}

// Spans as `behavior` puts them together; all that is left is a piece.
std::vector<Span> merge_spans(const std::vector<Span>& spans, SplitBehavior behavior) {
  std::vector<Span> out;
  bool after_match = false;  // before it, in the order of the loop
  switch (behavior) {
    case SplitBehavior::kIsolated:
      return spans;
    case SplitBehavior::kRemoved:
      std::ranges::copy_if(spans, std::back_inserter(out), [](const Span& s) { return !s.match; });
      return out;
    case SplitBehavior::kContiguous:
      for (const Span& span : spans) {
        if (!out.empty() && out.back().match == span.match) {
          out.back().end = span.end;
        } else {
          out.push_back(span);
        }
      }
      return out;
    case SplitBehavior::kMergedWithPrevious:
      for (const Span& span : spans) {
        if (span.match && !after_match && !out.empty()) {
          out.back().end = span.end;
        } else {
          out.push_back(span);
        }
        after_match = span.match;
      }
      return out;
    case SplitBehavior::kMergedWithNext:
      for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
        if (span->match && !after_match && !out.empty()) {
          out.back().begin = span->begin;
        } else {
          out.push_back(*span);
        }
        after_match = span->match;
      }
      std::ranges::reverse(out);
      return out;
  }
  return out;
}

template <class OnPart>
void cut_by_pattern(Pattern pattern, std::string_view text, const OnPart& on_part) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = piece_end(pattern, text, begin);
    on_part(begin, text.substr(begin, end - begin));
    begin = end;
  }
}

// cut(step, text, begins_text, on_part) calls on_part(begin, part) for the parts of `text`.
template <class OnPart>
void cut(const Split& split, std::string_view text, bool, const OnPart& on_part) {
  const auto* pattern = std::get_if<Pattern>(&split.pattern);
  // Known patterns match everything.
  const SplitBehavior whole = split.invert ? SplitBehavior::kRemoved : SplitBehavior::kIsolated;
  if (pattern && split.behavior == whole) return cut_by_pattern(*pattern, text, on_part);
  for (const Span& span : merge_spans(find_spans(text, split), split.behavior)) {
    on_part(span.begin, text.substr(span.begin, span.end - span.begin));
  }
}

template <class OnPart>
void cut(const Digits& digits, std::string_view text, bool, const OnPart& on_part) {
  size_t begin = 0;
  bool in_number = false;
  for (size_t at = 0; at < text.size();) {
    const CodeAt c = code_at(text, at);
    const bool number = is_numeric(c.code);
    if (at > begin && (number != in_number || (number && digits.individual))) {
      on_part(begin, text.substr(begin, at - begin));
      begin = at;
    }
    in_number = number;
    at = c.end;
  }
  on_part(begin, text.substr(begin));
}

template <class OnPart>
void cut(const ByteLevel& bytes, std::string_view text, bool, const OnPart& on_part) {
  std::string with_space;
  if (bytes.add_prefix_space && !text.starts_with(' ')) {
    with_space = ' ' + std::string(text);
    text = with_space;
  }
  if (!bytes.use_regex) return on_part(0, text);
  cut_by_pattern(Pattern::kGpt2, text, on_part);
}

template <class OnPart>
void cut(const Metaspace& meta, std::string_view text, bool begins_text, const OnPart& on_part) {
  using PrependScheme = Metaspace::PrependScheme;
  std::string marked;
  marked.reserve(text.size() + meta.replacement.size());
  const bool has_mark = text.starts_with(' ') || text.starts_with(meta.replacement);
  if (!has_mark && (meta.prepend == PrependScheme::kAlways ||
                    (meta.prepend == PrependScheme::kFirst && begins_text)))
    marked = meta.replacement;
  for (const char byte : text) {
    if (byte == ' ') {
      marked += meta.replacement;
    } else {
      marked += byte;
    }
  }
  if (!meta.split) return on_part(0, marked);
  // A mark and what follows it up to the next one.
  const std::string_view view = marked;
  for (size_t begin = 0; begin < view.size();) {
    const size_t end = std::min(view.find(meta.replacement, begin + 1), view.size());
    on_part(begin, view.substr(begin, end - begin));
    begin = end;
  }
}

}  // namespace

void PreTokenizer::run_step(size_t step, std::string_view text, bool begins_text,
                            const OnPiece& on_piece) const {
  if (text.empty()) return;
  if (step == steps_.size()) return on_piece(text);
  std::visit(
      [&](const auto& s) {
        cut(s, text, begins_text, [&](size_t begin, std::string_view part) {
          run_step(step + 1, part, begins_text && begin == 0, on_piece);
        });
      },
      steps_[step]);
}

}  // namespace halo
