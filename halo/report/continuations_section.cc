// How teacher and student go on from the same beginnings of held-out text.
#include <fmt/format.h>

#include "halo/report/sections.h"

namespace halo {

void add_continuations(Page& page, const RunFiles& run) {
  std::string body;
  for (const JsonView& one : run.summary.view().objects("continuations")) {
    body += fmt::format("<div class=\"said\"><p class=\"opening\">{}</p>\n",
                        escape_html(one.text("prompt")));
    for (const auto& [key, name] :
         {std::pair{"teacher", "teacher"}, {"student", "student"}, {"text", "the text itself"}}) {
      if (!one.has(key)) continue;
      body +=
          fmt::format("<div><small>{}</small><p>{}</p></div>\n", name, escape_html(one.text(key)));
    }
    body += "</div>\n";
  }
  if (body.empty()) return;
  page.add_section("continuations", "Continuations",
                   "Beginnings of held-out text (in bold), and how each model goes on from them if "
                   "it always takes the likeliest token.",
                   std::move(body));
}

}  // namespace halo
