// Runs the choices of one request on the scheduler and writes them to the client in an API's form,
// whole or as they come.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <vector>

#include "halo/engine/scheduler.h"
#include "halo/grammar/grammar.h"
#include "halo/server/answer_decoder.h"
#include "halo/server/answer_format.h"
#include "halo/server/exchange.h"
#include "halo/server/metrics.h"
#include "halo/server/served_model.h"

namespace halo {

// What answering needs of the server.
struct Answerer {
  Answerer(const ServedModel& served, Scheduler& scheduler, int64_t max_choices,
           int64_t draft_tokens)
      : model(served),
        scheduler(scheduler),
        metrics(served.name()),
        max_choices(max_choices),
        draft_tokens(draft_tokens) {}

  const ServedModel& model;
  Scheduler& scheduler;
  ServerMetrics metrics;
  const int64_t max_choices;   // admitted and not ended, at a time
  const int64_t draft_tokens;  // of every answer (request.h)
  std::atomic<int64_t> choices = 0;
};

// What a request comes down to.
struct AnswerPlan {
  Generation generation;
  std::vector<std::vector<int64_t>> prompts;  // n choices of each
  std::vector<std::string> prompt_texts;      // where the answer begins with them; else empty
  bool score_prompts = false;                 // with logprobs, whether or not they are echoed
  bool continues_text = false;                // the answer goes on with the prompt's text itself
  std::string prompt_field = "messages";      // of the request, for what is said of it
  AnswerForm form;
  std::optional<Grammar> grammar;  // of every answer
  std::unique_ptr<AnswerFormat> format;
};

class Answering : public std::enable_shared_from_this<Answering> {
 public:
  // Throws an ApiError where it can be told before the first token that it will not do; from then
  // on everything is written to the exchange.
  static void start(const std::shared_ptr<Answerer>& server, std::shared_ptr<Exchange> exchange,
                    AnswerPlan plan);

  Answering(std::shared_ptr<Answerer> server, std::shared_ptr<Exchange> exchange, AnswerPlan plan);
  ~Answering();

 private:
  using Clock = std::chrono::steady_clock;
  // One answer as it grows.
  struct Stream {
    AnswerDecoder text;
    std::optional<GrammarMatcher> matcher = {};  // of the plan's grammar, as far as the tokens are
    AnswerParts choice = {};
    std::vector<ScoredToken> waiting;  // not yet written with a piece
    int64_t prefilled = 0;
    bool at_end_token = false, prompt_told = false;
    Clock::time_point last_token;
  };

  void check() const;
  void submit_all();
  Request make_request(size_t index);
  void cancel_all();
  // Called by the thread that drives the scheduler.
  void on_prefill(size_t index, int64_t done);
  void on_prompt(size_t index, std::span<const TokenEvent> events);
  bool on_token(size_t index, const TokenEvent& event);
  void on_finish(size_t index, const Finish& finish);
  void put(size_t index, std::vector<Piece> pieces);
  void tell_prompt(size_t index);
  void finish_all();
  void fail(const ApiError& error);
  void write(const std::string& events);
  ScoredToken score(const TokenEvent& event, int64_t offset) const;
  std::chrono::duration<double> age() const { return Clock::now() - arrived_; }

  const std::shared_ptr<Answerer> server_;  // stays for callbacks that come after the server's end
  const std::shared_ptr<Exchange> exchange_;
  AnswerPlan plan_;
  std::vector<Stream> streams_;
  const int64_t seed_;
  Usage usage_;
  size_t unfinished_;
  std::atomic<bool> failed_ = false;
  const Clock::time_point arrived_ = Clock::now();
  std::mutex mutex_;  // of what follows
  std::vector<RequestId> ids_;
  bool gone_ = false;  // no longer wanted
};

}  // namespace halo
