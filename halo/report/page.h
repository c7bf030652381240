// The page around the charts: style, header, sections with a table of contents, tables.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace halo {

class Page {
 public:
  // `subtitle` is text; sections are shown in the order they are added.
  Page(std::string title, std::string subtitle);

  // Above all sections, in HTML.
  void set_summary(std::string html) { summary_ = std::move(html); }
  // `lead` is text (one or two sentences on what is shown), `body` HTML.
  void add_section(std::string id, std::string heading, std::string_view lead, std::string body);

  std::string html() const;

 private:
  struct Section {
    std::string id, heading, html;
  };
  std::string title_, subtitle_, summary_;
  std::vector<Section> sections_;
};

// Cells are HTML. The first column is text, the others are set as numbers.
std::string html_table(const std::vector<std::string>& header,
                       const std::vector<std::vector<std::string>>& rows);
// Charts beside each other: 2 or 3 columns where the window is wide enough.
std::string beside(const std::vector<std::string>& figures, int columns = 2);
std::string note(std::string_view text);

}  // namespace halo
