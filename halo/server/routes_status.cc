// What the server says of itself.
#include "halo/server/openapi.h"
#include "halo/server/service.h"

namespace halo {

void Service::live(const std::shared_ptr<Exchange>& exchange) {
  exchange->answer(json_answer(json::object{{"status", "ok"}}));
}

void Service::health(const std::shared_ptr<Exchange>& exchange) {
  if (draining_) throw ApiError(503, "", "", "the server is ending");
  if (is_stalled()) throw ApiError(503, "", "", "the engine has work and did nothing for a minute");
  const SchedulerStats stats = scheduler_.stats();
  exchange->answer(json_answer(
      json::object{{"status", "ok"}, {"running", stats.running}, {"queued", stats.queued}}));
}

json::object Service::model_json() const {
  const ModelConfig& config = model_.config();
  const Engine& engine = scheduler_.engine();
  const StateBytes bytes =
      state_bytes(engine.weights(), /*block_size=*/1, engine.options().kv_type);
  json::object meta{
      {"n_ctx", scheduler_.context()},  {"n_ctx_train", config.max_position_embeddings},
      {"n_vocab", config.vocab_size},   {"n_embd", config.hidden_size},
      {"hypenet", config.is_hypenet()}, {"attention_layers", config.attention_layers().size()},
      {"layers", config.num_layers},    {"kv_bytes_per_token", bytes.block},
      {"state_bytes", bytes.slot},      {"chat", model_.has_chat()}};
  return {{"id", model_.name()},
          {"object", "model"},
          {"created", model_.created()},
          {"owned_by", "halo"},
          {"max_model_len", scheduler_.context()},
          {"meta", std::move(meta)}};
}

void Service::models(const std::shared_ptr<Exchange>& exchange) {
  exchange->answer(
      json_answer(json::object{{"object", "list"}, {"data", json::array{model_json()}}}));
}

void Service::one_model(const std::shared_ptr<Exchange>& exchange) {
  const std::string& path = exchange->request().path;
  const std::string asked = path.substr(path.rfind("/models/") + 8);
  if (asked != model_.name())
    throw ApiError(404, "model_not_found", "model", fmt::format("there is no model '{}'", asked));
  exchange->answer(json_answer(model_json()));
}

void Service::metrics(const std::shared_ptr<Exchange>& exchange) {
  const SchedulerStats stats = scheduler_.stats();
  const auto share = [](int64_t part, int64_t whole) {
    return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
  };
  const auto number = [](int64_t n) { return static_cast<double>(n); };
  double age = 0;
  {
    const std::lock_guard lock(progress_mutex_);
    age = std::chrono::duration<double>(std::chrono::steady_clock::now() - progressed_).count();
  }
  HttpAnswer answer;
  answer.content_type = "text/plain; version=0.0.4; charset=utf-8";
  answer.body = answerer_->metrics.text({
      {"num_requests_running", "Sequences in the engine", number(stats.running)},
      {"num_requests_waiting", "Sequences that wait", number(stats.queued)},
      {"kv_cache_usage_perc", "Share of the key and value blocks in use, 0 to 1",
       share(stats.blocks_used, stats.blocks)},
      {"recurrent_state_slots_used", "Recurrent states in use", number(stats.slots_used)},
      {"recurrent_state_slots", "Recurrent states that there are", number(stats.slots)},
      {"sequence_tokens", "Tokens held by running sequences", number(stats.cached_sequence_tokens)},
      {"state_snapshots_stored", "Beginnings of prompts that are kept",
       number(stats.kept_prefixes)},
      {"engine_prompt_tokens_total", "Prompt tokens computed", number(stats.prompt_tokens), true},
      {"draft_tokens_total", "Draft tokens checked", number(stats.draft_tokens), true},
      {"draft_tokens_right_total", "Draft tokens that came", number(stats.right_tokens), true},
      {"num_preemptions_total", "Sequences that gave way", number(stats.preemptions), true},
      {"engine_last_step_seconds", "Time of the last step", stats.step_seconds},
      {"engine_last_step_age_seconds", "Since the engine last got on, or had nothing to do", age},
      {"connections", "Open connections", number(http_->connections())},
  });
  exchange->answer(std::move(answer));
}

void Service::openapi(const std::shared_ptr<Exchange>& exchange) {
  HttpAnswer answer;
  answer.body = openapi_json();
  exchange->answer(std::move(answer));
}

}  // namespace halo
