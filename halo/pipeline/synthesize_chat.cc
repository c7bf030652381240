// Conversations of one turn that a model makes up through its chat template: first what a user
// says, then the answer, its own or another model's.
#include <algorithm>
#include <cctype>

#include "halo/base/check.h"
#include "halo/base/progress.h"
#include "halo/chat/chat_template.h"
#include "halo/engine/generate.h"
#include "halo/pipeline/synthesize.h"

namespace halo {
namespace {

constexpr std::string_view kMark = "\x01message\x01";

std::string conversation(const ModelChat& chat, std::string_view message) {
  ChatOptions options;
  options.add_generation_prompt = true;
  return chat.render({json::object{{"role", "user"}, {"content", message}}}, options);
}

}  // namespace

ChatForm::ChatForm(const std::filesystem::path& teacher, const Tokenizer& tokenizer)
    : chat_(teacher), tokenizer_(tokenizer) {
  const std::string text = conversation(chat_, kMark);
  const size_t at = text.find(kMark);
  if (at == std::string::npos) {
    throw_error("{}: its chat template does not show what a user says as it stands",
                teacher.string());
  }
  before_ = tokenizer.encode(text.substr(0, at));
  const std::vector<int64_t> behind = tokenizer.encode(text.substr(at + kMark.size()));
  if (behind.empty() || !tokenizer.is_special(behind.front())) {
    throw_error(
        "{}: its chat template ends what a user says with no special token, so nobody can tell "
        "where a message that the teacher makes up is over",
        teacher.string());
  }
  end_of_message_ = behind.front();
}

std::vector<int64_t> ChatForm::with_message(const std::string& message) const {
  return tokenizer_.encode(conversation(chat_, message));
}

std::vector<std::optional<SampledDocument>> make_conversations(
    Scheduler& asks, Scheduler& answers, const ChatForm& form, const Tokenizer& tokenizer,
    const std::vector<int64_t>& ends, int64_t count, const Request& like, int64_t length) {
  std::vector<std::optional<SampledDocument>> documents(static_cast<size_t>(count));
  Request asking = like;
  asking.prompt = form.before();
  asking.max_tokens = std::max<int64_t>(1, length / 4);  // short beside what is answered
  asking.stop_ids = ends;
  asking.stop_ids.push_back(form.end_of_message());
  std::vector<Request> requests;
  for (int64_t i = 0; i < count; ++i) {
    asking.stream = like.stream + i;
    requests.push_back(asking);
  }
  const std::vector<Answer> messages = answer(asks, std::move(requests));
  std::vector<size_t> places;
  requests.clear();
  Request answering = like;
  answering.stop_ids = ends;
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::vector<int64_t>& words = messages[i].tokens;
    if (messages[i].finish.end_token != form.end_of_message()) continue;
    if (std::ranges::any_of(words, [&](int64_t id) { return tokenizer.is_special(id); })) continue;
    const std::string text = tokenizer.decode(words);
    if (std::ranges::all_of(text, [](unsigned char c) { return std::isspace(c) != 0; })) continue;
    answering.prompt = form.with_message(text);
    if (std::ssize(answering.prompt) + 2 > length) continue;
    // Streams of their own: the same numbers drew the messages.
    answering.stream = like.stream + (int64_t{1} << 40) + static_cast<int64_t>(i);
    places.push_back(i);
    requests.push_back(answering);
  }
  const std::vector<Answer> written = answer(answers, requests);
  for (size_t i = 0; i < written.size(); ++i) {
    const Answer& said = written[i];
    if (!said.finish.end_token || said.tokens.empty()) continue;
    const std::vector<int64_t>& prompt = requests[i].prompt;
    SampledDocument document{prompt, std::ssize(prompt)};
    document.tokens.insert(document.tokens.end(), said.tokens.begin(), said.tokens.end());
    document.tokens.push_back(*said.finish.end_token);
    if (std::ssize(document.tokens) < length) documents[places[i]] = std::move(document);
  }
  return documents;
}

}  // namespace halo
