#include "halo/tokenizer/decode.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/utf8.h"
#include "halo/tokenizer/normalize.h"

namespace halo {
namespace {

// One token's text; Replace steps in a row could make it any size.
constexpr size_t kMaxTokenBytes = size_t{1} << 20;

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Bytes at the end of `text` that may be the start of `what`, of which there is none in `text`.
size_t partial_match(std::string_view text, std::string_view what) {
  size_t size = std::min(text.size(), what.size() - 1);
  while (!what.starts_with(text.substr(text.size() - size))) --size;
  return size;
}

}  // namespace

int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  unsigned byte = 0;
  const auto end = std::from_chars(token.data() + 3, token.data() + 5, byte, 16).ptr;
  return end == token.data() + 5 ? static_cast<int>(byte) : -1;
}

std::string text_within(const DecoderSteps& steps, std::string_view token) {
  std::string out(token);
  for (const auto& step : steps.steps) {
    if (std::holds_alternative<ByteFallbackStep>(step)) {
      if (const int byte = byte_of_token(out); byte >= 0)
        return std::string(1, static_cast<char>(byte));
    } else if (const auto* replace = std::get_if<ReplaceStep>(&step)) {
      out = replace_all(out, replace->what, replace->with, kMaxTokenBytes);
    } else if (const auto* meta = std::get_if<MetaspaceStep>(&step)) {
      out = replace_all(out, meta->replacement, " ", kMaxTokenBytes);
    }
  }
  return out;
}

DecodeStream::DecodeStream(const DecoderSteps& steps)
    : steps_(steps), states_(steps.steps.size()) {}

void DecodeStream::push(std::string_view token, std::string& out) {
  limit_ = out.size() + kMaxTokenBytes;
  if (!steps_.byte_level) {
    part(0, token, out);
    end_token(0, out);
    return;
  }
  pending_ += token;
  const size_t complete = pending_.size() - incomplete_utf8_tail(pending_);
  if (complete == 0) return;
  std::string buffer;
  part(0, replace_invalid_utf8(std::string_view(pending_).substr(0, complete), buffer), out);
  pending_.erase(0, complete);
}

void DecodeStream::finish(std::string& out) {
  limit_ = out.size() + kMaxTokenBytes;
  if (steps_.byte_level) {
    part(0, replace_invalid_utf8(std::exchange(pending_, {})), out);
    end_token(0, out);
  }
  finish_step(0, out);
}

void DecodeStream::part(size_t step, std::string_view text, std::string& out) {
  if (step == states_.size()) {
    out += text;
    if (out.size() > limit_) throw_error("decode: a token's text is over {} bytes", kMaxTokenBytes);
    return;
  }
  State& state = states_[step];
  const auto& what = steps_.steps[step];
  if (std::holds_alternative<ByteFallbackStep>(what)) {
    state.held += text;
  } else if (std::holds_alternative<FuseStep>(what)) {
    part(step + 1, text, out);
  } else if (const auto* stripped = std::get_if<StripStep>(&what)) {
    strip(step, *stripped, text, out);
  } else if (const auto* replaced = std::get_if<ReplaceStep>(&what)) {
    replace(step, *replaced, text, out);
  } else {
    const auto& meta = std::get<MetaspaceStep>(what);
    const bool drop = meta.drop_in_first && state.in_first;
    replace(step, {meta.replacement, drop ? "" : " "}, text, out);
  }
}

void DecodeStream::end_token(size_t step, std::string& out) {
  if (step == states_.size()) return;
  State& state = states_[step];
  const auto& what = steps_.steps[step];
  if (std::holds_alternative<FuseStep>(what)) return;
  if (std::holds_alternative<ByteFallbackStep>(what)) {
    const std::string token = std::exchange(state.held, {});
    if (const int byte = byte_of_token(token); byte >= 0) {
      state.bytes += static_cast<char>(byte);
      return;
    }
    end_bytes(step, out);
    part(step + 1, token, out);
  } else if (std::holds_alternative<StripStep>(what)) {
    state.stripped = state.at_end = 0;
    state.in_start = true;
  } else {
    part(step + 1, std::exchange(state.held, {}), out);
    state.in_first = false;
  }
  end_token(step + 1, out);
}

void DecodeStream::finish_step(size_t step, std::string& out) {
  if (step == states_.size()) return;
  if (std::holds_alternative<ByteFallbackStep>(steps_.steps[step])) end_bytes(step, out);
  if (std::holds_alternative<FuseStep>(steps_.steps[step])) end_token(step + 1, out);
  finish_step(step + 1, out);
}

void DecodeStream::end_bytes(size_t step, std::string& out) {
  const std::string bytes = std::exchange(states_[step].bytes, {});
  if (bytes.empty()) return;
  limit_ += 4 * bytes.size();  // a run of tokens at once
  if (valid_utf8_prefix(bytes) == bytes.size()) {
    part(step + 1, bytes, out);
    end_token(step + 1, out);
    return;
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    part(step + 1, kReplacement, out);
    end_token(step + 1, out);
  }
}

void DecodeStream::strip(size_t step, const StripStep& strip, std::string_view text,
                         std::string& out) {
  State& state = states_[step];
  for (size_t at = 0; at < text.size();) {
    const std::string_view character = text.substr(at, code_at(text, at).end - at);
    at += character.size();
    if (character != strip.character) {
      state.in_start = false;
      for (; state.at_end > 0; --state.at_end) part(step + 1, strip.character, out);
      part(step + 1, character, out);
    } else if (state.in_start && state.stripped < strip.start) {
      ++state.stripped;
    } else if (state.at_end < strip.stop) {
      ++state.at_end;
    } else {
      part(step + 1, character, out);
    }
  }
}

void DecodeStream::replace(size_t step, const ReplaceStep& replace, std::string_view text,
                           std::string& out) {
  std::string& held = states_[step].held;
  held += text;
  const std::string all = std::exchange(held, {});
  const std::string_view view = all;
  size_t done = 0;
  for (size_t at = view.find(replace.what); at != view.npos; at = view.find(replace.what, done)) {
    part(step + 1, view.substr(done, at - done), out);
    part(step + 1, replace.with, out);
    done = at + replace.what.size();
  }
  const std::string_view rest = view.substr(done);
  const size_t partial = partial_match(rest, replace.what);
  part(step + 1, rest.substr(0, rest.size() - partial), out);
  held = rest.substr(rest.size() - partial);
}

}  // namespace halo
