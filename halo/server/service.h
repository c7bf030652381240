// The server: one model behind OpenAI's API.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "halo/base/settings.h"
#include "halo/server/answering.h"
#include "halo/server/http.h"
#include "halo/server/metrics.h"
#include "halo/server/served_model.h"
#include "halo/server/slot_files.h"

namespace halo {

struct ServiceSettings {
  std::string host = "127.0.0.1";
  int64_t port = 8080;
  std::string api_key_file, alias;
  int64_t max_queued = 256, draft_tokens = kDraftsThatPay;
  bool strict_model = false, slots = false, page = true;
  std::string slot_folder;
  double slot_gb = 10;
  std::string cors_origins;
  double drain_seconds = 30;
  HttpLimits http;

  void settings(Settings& s) {
    s("host", host, {.help = "address to listen on; 0.0.0.0: all, which wants keys"});
    s("port", port, {.help = "0: any that is free", .max = 65535});
    s("api_key_file", api_key_file,
      {.help = "file with a key a line; requests must bring one of them"});
    s("alias", alias, {.help = "name of the model for clients (empty: its directory's)"});
    s("max_queued", max_queued,
      {.help = "answers that may wait; more are refused with 429", .max = 1e6});
    s("draft_tokens", draft_tokens, {.help = kDraftTokensHelp, .min = kDraftsThatPay, .max = 16});
    s("strict_model", strict_model, {.help = "refuse requests that name another model"});
    s("slots", slots, {.help = "GET /slots: what runs, and which slots are saved"});
    s("slot_folder", slot_folder,
      {.help = "folder for /slots/save, restore and erase; empty: they are off"});
    s("slot_gb", slot_gb, {.help = "GB that saved slots may take", .max = 1e6});
    s("page", page, {.help = "the page for chatting, at /"});
    s("cors_origins", cors_origins,
      {.help = "origins whose pages may ask, with commas between them"});
    s("drain_seconds", drain_seconds,
      {.help = "after SIGTERM, for what runs to end", .max = 86'400});
    s("http", http, {});
  }
};

class Service {
 public:
  // Serves from now on. `model` and `scheduler`, which somebody drives, must outlive this.
  Service(const ServedModel& model, Scheduler& scheduler, const ServiceSettings& settings,
          int64_t max_running);
  ~Service();

  int64_t port() const { return http_->port(); }
  // What a person should know before others connect; empty: nothing.
  std::string warning() const;

  // To be called every now and then: sees whether the engine gets on.
  void tick();
  // From now on new requests are refused.
  void start_draining() { draining_ = true; }
  // Nothing runs, and every answer has been sent.
  bool is_idle() const;

 private:
  using Handler = void (Service::*)(const std::shared_ptr<Exchange>&);
  struct Route {
    std::string_view method, path;
    Handler handler;
    bool is_public = false;  // needs no key
    bool is_work = false;    // refused while the server ends
  };
  static const std::vector<Route>& routes();
  const Route* find(const HttpRequest& request, bool& path_is_known) const;

  void read_keys(const std::string& file);
  bool has_key(const HttpRequest& request) const;
  void check_host(const HttpRequest& request) const;
  std::optional<HttpAnswer> refuse(const HttpRequest& head) const;
  void check_access(const HttpRequest& head) const;
  void handle(const std::shared_ptr<Exchange>& exchange);
  HttpHeaders headers(const HttpRequest& request) const;
  static json::value body_of(Exchange& exchange);
  // The name that is answered, for one that was asked.
  std::string answered_model(const std::string& asked) const;
  void start(const std::shared_ptr<Exchange>& exchange, AnswerPlan plan);
  bool is_stalled() const;

  // Routes (routes_*.cc).
  void health(const std::shared_ptr<Exchange>& exchange);
  void live(const std::shared_ptr<Exchange>& exchange);
  void models(const std::shared_ptr<Exchange>& exchange);
  void one_model(const std::shared_ptr<Exchange>& exchange);
  void metrics(const std::shared_ptr<Exchange>& exchange);
  void slots(const std::shared_ptr<Exchange>& exchange);
  void save_slot(const std::shared_ptr<Exchange>& exchange);
  void restore_slot(const std::shared_ptr<Exchange>& exchange);
  void erase_slot(const std::shared_ptr<Exchange>& exchange);
  void openapi(const std::shared_ptr<Exchange>& exchange);
  void tokenize(const std::shared_ptr<Exchange>& exchange);
  void detokenize(const std::shared_ptr<Exchange>& exchange);
  void tokenizer_info(const std::shared_ptr<Exchange>& exchange);
  void apply_template(const std::shared_ptr<Exchange>& exchange);
  void completions(const std::shared_ptr<Exchange>& exchange);
  void chat_completions(const std::shared_ptr<Exchange>& exchange);
  void responses(const std::shared_ptr<Exchange>& exchange);
  void messages(const std::shared_ptr<Exchange>& exchange);
  void page(const std::shared_ptr<Exchange>& exchange);
  void count_tokens(const std::shared_ptr<Exchange>& exchange);
  AnswerPlan plan_chat(ChatRequest request, std::unique_ptr<AnswerFormat> format) const;
  json::object model_json() const;

  const ServedModel& model_;
  Scheduler& scheduler_;
  const ServiceSettings settings_;
  const SlotFiles slot_files_;
  std::vector<std::string> keys_, origins_;
  const std::shared_ptr<Answerer> answerer_;
  std::atomic<bool> draining_ = false;
  std::mutex ignored_mutex_;           // of the one
  std::set<std::string> ignored_;      // fields that were named in the log already
  mutable std::mutex progress_mutex_;  // of the two
  int64_t progress_ = 0;
  std::chrono::steady_clock::time_point progressed_ = std::chrono::steady_clock::now();
  std::unique_ptr<HttpServer> http_;  // last: its threads use all above
};

}  // namespace halo
