#include "halo/server/answering.h"

#include <algorithm>
#include <functional>

namespace halo {
namespace {

std::string finish_label(const char* reason) {
  return fmt::format("finished_reason=\"{}\"", reason);
}

}  // namespace

Answering::Answering(std::shared_ptr<Answerer> server, std::shared_ptr<Exchange> exchange,
                     AnswerPlan plan)
    : server_(std::move(server)),
      exchange_(std::move(exchange)),
      plan_(std::move(plan)),
      seed_(plan_.generation.seed.value_or(fresh_seed())) {
  const auto n = static_cast<size_t>(plan_.generation.n);
  for (size_t i = 0; i < plan_.prompts.size() * n; ++i) {
    const std::vector<int64_t>& prompt = plan_.prompts[i / n];
    const std::span<const int64_t> before =
        plan_.continues_text ? std::span(prompt) : std::span<const int64_t>();
    streams_.push_back(
        {.text = AnswerDecoder(server_->model.tokenizer(), plan_.form, plan_.generation, before)});
    if (plan_.grammar) streams_.back().matcher.emplace(*plan_.grammar);
    if (!plan_.prompt_texts.empty()) streams_.back().choice.prompt_text = plan_.prompt_texts[i / n];
  }
  unfinished_ = streams_.size();
}

Answering::~Answering() {
  server_->choices -= std::ssize(streams_);
}

void Answering::start(const std::shared_ptr<Answerer>& server, std::shared_ptr<Exchange> exchange,
                      AnswerPlan plan) {
  const auto choices = std::ssize(plan.prompts) * plan.generation.n;
  if ((server->choices += choices) > server->max_choices) {
    server->choices -= choices;
    server->metrics.add("rejected_requests_total");
    ApiError error(429, "queue_full", "", "too many requests wait already; try again later");
    error.retry_after = 1;
    throw error;
  }
  auto self = std::make_shared<Answering>(server, std::move(exchange), std::move(plan));
  self->check();
  if (self->plan_.generation.stream) {
    HttpAnswer head;
    head.content_type = "text/event-stream; charset=utf-8";
    head.headers = {{"cache-control", "no-store"}, {"x-accel-buffering", "no"}};
    self->exchange_->begin(std::move(head), ": ping\n\n");
    Usage known;
    for (const auto& prompt : self->plan_.prompts) known.prompt_tokens += std::ssize(prompt);
    self->write(self->plan_.format->begin(known));
  }
  self->exchange_->when_gone([weak = std::weak_ptr(self)] {
    if (const auto answering = weak.lock()) answering->cancel_all();
  });
  self->submit_all();
}

void Answering::check() const {
  const int64_t context = server_->scheduler.context();
  for (const std::vector<int64_t>& prompt : plan_.prompts) {
    const int64_t size = std::ssize(prompt), wanted = plan_.generation.max_tokens.value_or(1);
    if (size == 0) throw bad_field(plan_.prompt_field, "holds no token");
    if (size + wanted <= context) continue;
    ApiError error =
        bad_field(plan_.prompt_field,
                  plan_.generation.max_tokens && size < context
                      ? fmt::format("{} tokens and an answer of {} are more than the context of {}",
                                    size, wanted, context)
                      : fmt::format("{} tokens leave no room for an answer in the context of {}",
                                    size, context),
                  "context_length_exceeded");
    error.more = {{"n_prompt_tokens", size}, {"n_ctx", context}};
    throw error;
  }
  for (const auto& [token, bias] : plan_.generation.sample.logit_bias) {
    if (token >= server_->model.config().vocab_size)
      throw bad_field(fmt::format("logit_bias.{}", token), "is no token of the model");
  }
}

void Answering::submit_all() {
  for (size_t i = 0; i < streams_.size() && !failed_; ++i) {
    try {
      const RequestId id = server_->scheduler.submit(make_request(i));
      const std::lock_guard lock(mutex_);
      ids_.push_back(id);
      if (gone_) server_->scheduler.cancel(id);
    } catch (const Error& error) {
      fail(ApiError(400, "invalid_request", "", error.what()));
    }
  }
}

Request Answering::make_request(size_t index) {
  const Generation& generation = plan_.generation;
  const auto n = static_cast<size_t>(generation.n);
  Request out;
  out.prompt = plan_.prompts[index / n];
  out.max_tokens = generation.max_tokens;
  out.sample = generation.sample;
  out.seed = seed_;
  out.stream = static_cast<int64_t>(index);
  out.draft_tokens = server_->draft_tokens;
  out.top_logprobs = generation.top_logprobs;
  if (plan_.score_prompts)
    out.prompt_logprobs = std::max(generation.top_logprobs, generation.prompt_logprobs);
  out.salt = salt_of(generation.cache_salt);
  const auto self = shared_from_this();
  if (plan_.grammar) {
    out.on_mask = [self, index](std::span<uint32_t> allowed) {
      self->streams_[index].matcher->mask(allowed);
    };
  }
  out.on_prefill = [self, index](int64_t done, int64_t) { self->on_prefill(index, done); };
  if (plan_.score_prompts) {
    out.on_prompt_tokens = [self, index](std::span<const TokenEvent> events) {
      self->on_prompt(index, events);
    };
  }
  out.on_token = [self, index](const TokenEvent& event) { return self->on_token(index, event); };
  out.on_finish = [self, index](const Finish& finish) { self->on_finish(index, finish); };
  return out;
}

void Answering::cancel_all() {
  const std::lock_guard lock(mutex_);
  gone_ = true;
  for (const RequestId id : ids_) server_->scheduler.cancel(id);
}

void Answering::on_prefill(size_t index, int64_t done) {
  streams_[index].prefilled = done;
  if (!plan_.generation.return_progress) return;
  int64_t all = 0, of = 0;
  for (size_t i = 0; i < streams_.size(); ++i) {
    all += streams_[i].prefilled;
    of += std::ssize(plan_.prompts[i / static_cast<size_t>(plan_.generation.n)]);
  }
  write(plan_.format->progress(all, of));
}

ScoredToken Answering::score(const TokenEvent& event, int64_t offset) const {
  const Tokenizer& tokenizer = server_->model.tokenizer();
  ScoredToken out;
  out.id = event.token;
  out.bytes = tokenizer.token_bytes(event.token);
  out.logprob = event.logprob;
  out.text_offset = offset;
  for (const TokenLogprob& top : event.top)
    out.top.push_back({top.token, tokenizer.token_bytes(top.token), top.logprob});
  return out;
}

void Answering::on_prompt(size_t index, std::span<const TokenEvent> events) {
  AnswerParts& choice = streams_[index].choice;
  std::vector<ScoredToken>& tokens = choice.prompt_tokens;
  if (tokens.empty()) {  // the first has no log-probability, but a place
    const auto& prompt = plan_.prompts[index / static_cast<size_t>(plan_.generation.n)];
    tokens.push_back(score({.token = prompt.front()}, 0));
  }
  for (const TokenEvent& event : events) {
    const ScoredToken& last = tokens.back();
    tokens.push_back(score(event, last.text_offset + count_characters(last.bytes)));
  }
}

void Answering::tell_prompt(size_t index) {
  Stream& stream = streams_[index];
  if (stream.prompt_told) return;
  stream.prompt_told = true;
  // A prompt of one token has no event of its own.
  if (plan_.score_prompts && stream.choice.prompt_tokens.empty()) on_prompt(index, {});
  if (plan_.generation.stream) write(plan_.format->prompt(index, stream.choice));
}

bool Answering::on_token(size_t index, const TokenEvent& event) {
  Stream& stream = streams_[index];
  const Clock::time_point now = Clock::now();
  if (stream.last_token == Clock::time_point()) {
    server_->metrics.observe("time_to_first_token_seconds", age().count());
    tell_prompt(index);
  } else {
    server_->metrics.observe("inter_token_latency_seconds",
                             std::chrono::duration<double>(now - stream.last_token).count());
  }
  stream.last_token = now;
  const std::vector<int64_t>& ends = server_->model.end_tokens();
  const bool is_end = !plan_.generation.ignore_eos && std::ranges::count(ends, event.token) > 0;
  if (plan_.generation.top_logprobs >= 0 && (!is_end || plan_.continues_text)) {
    const int64_t before = count_characters(stream.choice.prompt_text);
    stream.waiting.push_back(score(event, before + stream.text.decoded()));
  }
  // Looked for here and not by the scheduler, which would not say how likely it was.
  if (is_end) {
    stream.at_end_token = true;
    return false;
  }
  if (stream.matcher) stream.matcher->accept(event.token);
  put(index, stream.text.push(event.token));
  return !stream.text.stopped() && !(stream.matcher && stream.matcher->ended());
}

void Answering::put(size_t index, std::vector<Piece> pieces) {
  Stream& stream = streams_[index];
  AnswerParts& choice = stream.choice;
  for (Piece& piece : pieces) {
    if (plan_.generation.stream) {
      std::vector<ScoredToken> tokens = std::exchange(stream.waiting, {});
      write(plan_.format->piece(index, piece, tokens));
      continue;
    }
    const bool joins = !choice.pieces.empty() && piece.kind != Piece::Kind::kToolCall &&
                       choice.pieces.back().kind == piece.kind;
    if (joins) {
      choice.pieces.back().text += piece.text;
    } else {
      choice.pieces.push_back(std::move(piece));
    }
  }
}

void Answering::on_finish(size_t index, const Finish& finish) {
  Stream& stream = streams_[index];
  ServerMetrics& metrics = server_->metrics;
  --unfinished_;
  usage_.prompt_tokens += index % static_cast<size_t>(plan_.generation.n) == 0
                              ? finish.prompt_tokens
                              : 0;  // of n choices once
  if (index % static_cast<size_t>(plan_.generation.n) == 0) {
    usage_.cached_tokens += finish.cached_tokens;
    if (!finish.cache_miss_reason.empty()) usage_.cache_miss_reason = finish.cache_miss_reason;
  }
  usage_.completion_tokens += finish.completion_tokens;
  usage_.prefill_seconds = std::max(usage_.prefill_seconds, finish.prefill_seconds);
  usage_.decode_seconds = std::max(usage_.decode_seconds, finish.decode_seconds);
  metrics.add("prompt_tokens_total", "", static_cast<double>(finish.prompt_tokens));
  metrics.add("prompt_tokens_cached_total", "", static_cast<double>(finish.cached_tokens));
  metrics.add("generation_tokens_total", "", static_cast<double>(finish.completion_tokens));
  if (finish.reason == Finish::Reason::kCancelled) {
    metrics.add("cancelled_requests_total");
    fail(ApiError(503, "", "", "the server ended before the answer did"));
  } else if (finish.reason == Finish::Reason::kError) {
    metrics.add("request_errors_total");
    fail(ApiError(500, "engine_error", "", finish.error));
  } else {
    tell_prompt(index);
    put(index, stream.text.finish());
    const bool at_length = finish.reason == Finish::Reason::kLength;
    stream.choice.stop = stream.text.stopped_by();
    stream.choice.finish = stream.text.has_calls()             ? FinishReason::kToolCalls
                           : stream.text.stopped()             ? FinishReason::kStopString
                           : at_length && !stream.at_end_token ? FinishReason::kLength
                                                               : FinishReason::kStop;
    metrics.add("request_success_total", finish_label(finish_word(stream.choice.finish)));
    metrics.observe("request_prompt_tokens", static_cast<double>(finish.prompt_tokens));
    metrics.observe("request_generation_tokens", static_cast<double>(finish.completion_tokens));
    metrics.observe("request_queue_time_seconds", finish.queue_seconds);
    metrics.observe("request_prefill_time_seconds", finish.prefill_seconds);
    metrics.observe("request_decode_time_seconds", finish.decode_seconds);
    // Tokens behind the stop string are no part of the answer.
    if (stream.text.stopped()) {
      const int64_t end = count_characters(stream.choice.prompt_text) + stream.text.certain();
      std::erase_if(stream.waiting,
                    [&](const ScoredToken& token) { return token.text_offset >= end; });
    }
    if (plan_.generation.stream) {
      write(plan_.format->end(index, stream.choice, stream.waiting));
    } else {
      stream.choice.tokens = std::move(stream.waiting);
    }
  }
  if (unfinished_ == 0) finish_all();
}

void Answering::finish_all() {
  server_->metrics.observe("e2e_request_latency_seconds", age().count());
  if (failed_) return;
  if (plan_.generation.stream) {
    write(plan_.format->done(usage_));
    exchange_->end();
    return;
  }
  std::vector<AnswerParts> choices;
  for (Stream& stream : streams_) choices.push_back(std::move(stream.choice));
  exchange_->answer(json_answer(plan_.format->whole(choices, usage_)));
}

// The first fault ends the request.
void Answering::fail(const ApiError& error) {
  if (failed_.exchange(true)) return;
  if (exchange_->begun()) {
    exchange_->write(plan_.format->failed(error));
    exchange_->end();
  } else {
    exchange_->answer(error.answer());
  }
  cancel_all();
}

void Answering::write(const std::string& events) {
  if (!events.empty()) exchange_->write(events);
}

}  // namespace halo
