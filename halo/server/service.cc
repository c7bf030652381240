// Who may ask for what, and where it goes.
#include "halo/server/service.h"

#include <algorithm>
#include <sstream>

#include "halo/base/files.h"
#include "halo/base/progress.h"

namespace halo {
namespace {

constexpr double kStallSeconds = 60;

// Takes as long for a wrong key as for the right one.
bool is_same(std::string_view a, std::string_view b) {
  unsigned differs = a.size() != b.size();
  for (size_t i = 0; i < a.size(); ++i) {
    differs |= static_cast<unsigned char>(a[i]) ^
               static_cast<unsigned char>(b.empty() ? 0 : b[i % b.size()]);
  }
  return differs == 0;
}

bool is_json(std::string_view content_type) {
  std::string type(content_type.substr(0, content_type.find(';')));
  while (type.ends_with(' ')) type.pop_back();
  std::ranges::transform(type, type.begin(), [](unsigned char c) { return std::tolower(c); });
  return type == "application/json" ||
         (type.starts_with("application/") && type.ends_with("+json"));
}

// "[::1]:8080" -> "[::1]"
std::string_view host_name(std::string_view host) {
  if (host.starts_with('[')) return host.substr(0, host.find(']') + 1);
  return host.substr(0, host.find(':'));
}

bool is_address(std::string_view name) {
  return name.starts_with('[') ||
         std::ranges::all_of(name, [](char c) { return (c >= '0' && c <= '9') || c == '.'; });
}

}  // namespace

Service::Service(const ServedModel& model, Scheduler& scheduler, const ServiceSettings& settings,
                 int64_t max_running)
    : model_(model),
      scheduler_(scheduler),
      settings_(settings),
      slot_files_(settings.slot_folder, static_cast<int64_t>(settings.slot_gb * 1e9)),
      answerer_(std::make_shared<Answerer>(model, scheduler, max_running + settings.max_queued,
                                           settings.draft_tokens)) {
  if (!settings.api_key_file.empty()) read_keys(settings.api_key_file);
  std::istringstream origins(settings.cors_origins);
  for (std::string origin; std::getline(origins, origin, ',');) origins_.push_back(origin);
  HttpHandler handler;
  handler.refuse = [this](const HttpRequest& head) { return refuse(head); };
  handler.handle = [this](const std::shared_ptr<Exchange>& exchange) { handle(exchange); };
  handler.error = [](int status, const std::string& message) {
    return ApiError(status, "", "", message).answer();
  };
  handler.headers = [this](const HttpRequest& request) { return headers(request); };
  handler.answered = [this](const HttpRequest& request, int status) {
    bool known = false;
    const Route* route = find(request, known);
    answerer_->metrics.add(
        "requests_total",
        fmt::format("route=\"{}\",status=\"{}\"", route == nullptr ? "" : route->path, status));
  };
  http_ =
      std::make_unique<HttpServer>(settings.host, settings.port, settings.http, std::move(handler));
  http_->serve();
}

Service::~Service() = default;

std::string Service::warning() const {
  if (http_->is_loopback() || !keys_.empty()) return "";
  return fmt::format(
      "{} is not this machine alone: whoever reaches port {} can use the model; give "
      "--api-key-file",
      settings_.host, port());
}

void Service::read_keys(const std::string& file) {
  const auto mode = std::filesystem::status(file).permissions();
  constexpr auto kOthers = std::filesystem::perms::others_all;
  if ((mode & kOthers) != std::filesystem::perms::none)
    warn(fmt::format("{}: others may read the keys; chmod 600 it", file));
  std::istringstream lines(read_file(file, 1 << 20));
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty() && !line.starts_with('#')) keys_.push_back(line);
  }
  if (keys_.empty()) throw_error("{}: holds no key; expected one a line", file);
}

bool Service::has_key(const HttpRequest& request) const {
  if (keys_.empty()) return true;
  std::string_view given = request.header("authorization");
  constexpr std::string_view kBearer = "bearer ";
  const bool is_bearer =
      given.size() > kBearer.size() &&
      std::ranges::equal(given.substr(0, kBearer.size()), kBearer,
                         [](unsigned char a, char b) { return std::tolower(a) == b; });
  given = is_bearer ? given.substr(kBearer.size()) : request.header("x-api-key");
  bool found = false;
  for (const std::string& key : keys_) found |= is_same(given, key);
  return found;
}

// A page of somewhere else must not reach a server without keys by a name of its own for this
// machine.
void Service::check_host(const HttpRequest& request) const {
  const std::string_view name = host_name(request.header("host"));
  if (!keys_.empty() || !http_->is_loopback()) return;
  if (is_address(name) || name == "localhost" || name.ends_with(".localhost")) return;
  throw ApiError(403, "host_not_allowed", "",
                 "without keys this server answers to 'localhost' and to addresses alone; give it "
                 "--api-key-file to reach it by another name");
}

const Service::Route* Service::find(const HttpRequest& request, bool& path_is_known) const {
  for (const Route& route : routes()) {
    const bool is_below =
        route.path.ends_with('/') && route.path.size() > 1 && request.path.starts_with(route.path);
    if (request.path != route.path && !is_below) continue;
    path_is_known = true;
    const bool is_head = request.method == "HEAD" && route.method == "GET";
    if (request.method == route.method || is_head) return &route;
  }
  return nullptr;
}

void Service::check_access(const HttpRequest& head) const {
  check_host(head);
  bool path_is_known = false;
  const Route* route = find(head, path_is_known);
  if ((route == nullptr || !route->is_public) && !has_key(head))
    throw ApiError(401, "invalid_api_key", "",
                   "no valid API key; send it as 'Authorization: Bearer KEY'");
  if (route == nullptr && path_is_known)
    throw ApiError(405, "method_not_allowed", "",
                   fmt::format("{} has no method {}", head.path, head.method));
  if (route == nullptr)
    throw ApiError(404, "unknown_url", "", fmt::format("there is no {}", head.path));
  if (route->is_work && draining_) {
    ApiError error(503, "", "", "the server is ending");
    error.retry_after = 5;
    throw error;
  }
  if (route->method == "POST" && !is_json(head.header("content-type")))
    throw ApiError(415, "unsupported_media_type", "",
                   "the body must be JSON; send 'Content-Type: application/json'");
}

std::optional<HttpAnswer> Service::refuse(const HttpRequest& head) const {
  const bool may_cross = !headers(head).empty();
  if (head.method == "OPTIONS" && may_cross) {
    HttpAnswer answer;
    answer.status = 204;
    answer.content_type.clear();
    answer.headers = {{"access-control-allow-methods", "GET, POST"},
                      {"access-control-allow-headers", "authorization, content-type, x-api-key"},
                      {"access-control-max-age", "600"}};
    return answer;
  }
  try {
    check_access(head);
    return std::nullopt;
  } catch (const ApiError& error) {
    return error.answer();
  }
}

HttpHeaders Service::headers(const HttpRequest& request) const {
  const std::string_view origin = request.header("origin");
  if (origin.empty() || std::ranges::count(origins_, origin) == 0) return {};
  return {{"access-control-allow-origin", std::string(origin)}, {"vary", "origin"}};
}

void Service::handle(const std::shared_ptr<Exchange>& exchange) {
  try {
    bool known = false;
    const Route* route = find(exchange->request(), known);
    (this->*route->handler)(exchange);
  } catch (const ApiError& error) {
    exchange->answer(error.answer());
  }
}

json::value Service::body_of(Exchange& exchange) {
  const std::string body = exchange.take_body();
  if (body.empty()) throw bad_field("", "the request has no body; expected JSON", "invalid_json");
  try {
    return parse_json(body, "body");
  } catch (const Error& error) {
    throw bad_field("", error.what(), "invalid_json");
  }
}

std::string Service::answered_model(const std::string& asked) const {
  if (asked.empty() || asked == model_.name()) return model_.name();
  if (settings_.strict_model)
    throw ApiError(
        404, "model_not_found", "model",
        fmt::format("there is no model '{}'; this server has '{}'", asked, model_.name()));
  return asked;
}

void Service::tick() {
  const SchedulerStats stats = scheduler_.stats();
  const int64_t progress = stats.prompt_tokens + stats.generated_tokens + stats.reused_tokens;
  const std::lock_guard lock(progress_mutex_);
  if (stats.running + stats.queued > 0 && progress == progress_) return;
  progress_ = progress;
  progressed_ = std::chrono::steady_clock::now();
}

bool Service::is_stalled() const {
  const std::lock_guard lock(progress_mutex_);
  const std::chrono::duration<double> since = std::chrono::steady_clock::now() - progressed_;
  return since.count() > kStallSeconds;
}

bool Service::is_idle() const {
  return answerer_->choices == 0 && http_->exchanges() == 0;
}

const std::vector<Service::Route>& Service::routes() {
  static const std::vector<Route> all = {
      {"GET", "/", &Service::page, true},
      {"GET", "/page/", &Service::page, true},
      {"GET", "/health", &Service::health},
      {"GET", "/v1/health", &Service::health},
      {"GET", "/health/live", &Service::live, true},
      {"GET", "/v1/models", &Service::models},
      {"GET", "/v1/models/", &Service::one_model},
      {"GET", "/metrics", &Service::metrics},
      {"GET", "/slots", &Service::slots},
      {"POST", "/slots/save", &Service::save_slot, false, true},
      {"POST", "/slots/restore", &Service::restore_slot, false, true},
      {"POST", "/slots/erase", &Service::erase_slot},
      {"GET", "/openapi.json", &Service::openapi},
      {"GET", "/tokenizer_info", &Service::tokenizer_info},
      {"POST", "/tokenize", &Service::tokenize},
      {"POST", "/detokenize", &Service::detokenize},
      {"POST", "/apply-template", &Service::apply_template},
      {"POST", "/v1/completions", &Service::completions, false, true},
      {"POST", "/v1/chat/completions", &Service::chat_completions, false, true},
      {"POST", "/v1/responses", &Service::responses, false, true},
      {"POST", "/v1/messages", &Service::messages, false, true},
      {"POST", "/v1/messages/count_tokens", &Service::count_tokens},
  };
  return all;
}

}  // namespace halo
