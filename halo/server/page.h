// The files of the page for chatting (halo/server/page).
#pragma once

#include <string_view>

namespace halo {

std::string_view page_index_html();
std::string_view page_style_css();
std::string_view page_app_js();
std::string_view page_api_js();
std::string_view page_markdown_js();

}  // namespace halo
