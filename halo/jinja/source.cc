#include "halo/jinja/source.h"

#include <algorithm>

#include "halo/base/utf8.h"
#include "halo/jinja/text.h"

namespace halo::jinja {

Source::Source(std::string_view raw, std::string name) : name_(std::move(name)) {
  const std::string text = replace_invalid_utf8(raw);
  if (text != raw) throw_error("{}: the template is not UTF-8", name_);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r') {
      text_ += text[i];
    } else {
      text_ += '\n';
      if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
    }
  }
  if (text_.ends_with('\n')) text_.pop_back();
}

std::string Source::place(size_t offset) const {
  const std::string_view before = std::string_view(text_).substr(0, offset);
  const size_t line_begin = before.rfind('\n') + 1;  // npos + 1 is 0
  return fmt::format("{}:{}:{}", name_, 1 + std::ranges::count(before, '\n'),
                     1 + num_characters(before.substr(line_begin)));
}

}  // namespace halo::jinja
