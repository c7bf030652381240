// The page: files in the program, which ask for nothing from anywhere else.
#include "halo/server/page.h"
#include "halo/server/service.h"

namespace halo {
namespace {

struct File {
  std::string_view path;
  const char* type;
  std::string_view (*text)();
};

constexpr File kFiles[] = {
    {"/", "text/html; charset=utf-8", page_index_html},
    {"/page/style.css", "text/css; charset=utf-8", page_style_css},
    {"/page/app.js", "text/javascript; charset=utf-8", page_app_js},
    {"/page/api.js", "text/javascript; charset=utf-8", page_api_js},
    {"/page/markdown.js", "text/javascript; charset=utf-8", page_markdown_js},
};

}  // namespace

void Service::page(const std::shared_ptr<Exchange>& exchange) {
  const std::string& path = exchange->request().path;
  for (const File& file : kFiles) {
    if (!settings_.page || path != file.path) continue;
    HttpAnswer answer;
    answer.content_type = file.type;
    answer.body = file.text();
    answer.headers = {
        {"content-security-policy",
         "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src "
         "'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
        {"referrer-policy", "no-referrer"},
        {"cache-control", "no-cache"}};
    exchange->answer(std::move(answer));
    return;
  }
  throw ApiError(404, "unknown_url", "", fmt::format("there is no {}", path));
}

}  // namespace halo
