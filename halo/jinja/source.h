// The text of a template and where in it something is wrong.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "halo/base/check.h"

namespace halo::jinja {

class Source {
 public:
  // Line ends become \n and one at the very end goes, as Jinja does it.
  Source(std::string_view text, std::string name);

  const std::string& text() const { return text_; }
  // "NAME:LINE:COLUMN", from 1; columns count characters.
  std::string place(size_t offset) const;

  template <class... Args>
  [[noreturn]] void fail(size_t offset, fmt::format_string<Args...> format, Args&&... args) const {
    throw Error(place(offset) + ": " + fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  std::string text_, name_;
};

}  // namespace halo::jinja
