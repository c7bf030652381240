#include "halo/eval/tasks/answer_cache.h"

#include <algorithm>

#include "halo/base/check.h"
#include "halo/base/files.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

std::string hash_text(std::string_view text) {
  return hash_hex(std::as_bytes(std::span(text)));
}

// Everything that an item asks, unambiguously.
std::string key_of(const TaskItem& item) {
  json::array asked;
  for (const ScoreRequest& r : item.scored) asked.push_back({r.prompt, r.continuation});
  for (const GenerateRequest& r : item.generated) {
    asked.push_back({r.prompt, json::value_from(r.stops), r.max_tokens});
  }
  return hash_text(json::serialize(asked));
}

Answers read_answers(const json::object& line, const std::string& place) {
  Answers answers;
  for (const json::value& score : json_get<json::array>(line, "scores", place)) {
    answers.scores.push_back({score.at(0).to_number<double>(), score.at(1).as_bool()});
  }
  for (const json::value& text : json_get<json::array>(line, "texts", place)) {
    answers.texts.emplace_back(text.as_string());
  }
  return answers;
}

}  // namespace

std::string model_hash(const fs::path& directory) {
  std::vector<fs::path> files = {directory / "config.json", directory / "tokenizer.json"};
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  std::string all;
  for (const fs::path& file : files) all += file.filename().string() + hash_file(file);
  return hash_text(all);
}

AnswerCache::AnswerCache(const fs::path& file) : path_(file) {
  fs::create_directories(file.parent_path());
  if (fs::exists(file)) {
    const std::string text = read_file(file);
    const size_t whole = text.rfind('\n') + 1;  // 0 where there is no whole line
    if (whole < text.size()) fs::resize_file(file, whole);
    int64_t number = 1;
    for (size_t at = 0; at < whole; ++number) {
      const size_t end = text.find('\n', at);
      const std::string place = fmt::format("{}: line {}", file.string(), number);
      const json::value line = parse_json(std::string_view(text).substr(at, end - at), place);
      try {
        const auto key = json_get<std::string>(line.as_object(), "key", place);
        answers_[key] = read_answers(line.as_object(), place);
      } catch (const Error&) {
        throw;
      } catch (const std::exception&) {  // JSON's, of a value of another kind
        throw_error("{}: holds no answers of an item; remove the file", place);
      }
      at = end + 1;
    }
  }
  out_.open(file, std::ios::app);
  if (!out_) throw_error("{}: cannot be written to", file.string());
}

const Answers* AnswerCache::find(const TaskItem& item) const {
  const auto found = answers_.find(key_of(item));
  return found == answers_.end() ? nullptr : &found->second;
}

void AnswerCache::add(const TaskItem& item, const Answers& answers) {
  json::array scores;
  for (const Score& score : answers.scores) scores.push_back({score.loglikelihood, score.greedy});
  const std::string key = key_of(item);
  out_ << json::serialize(json::object{{"key", key},
                                       {"scores", std::move(scores)},
                                       {"texts", json::value_from(answers.texts)}})
       << "\n";
  answers_[key] = answers;
}

void AnswerCache::flush() {
  out_.flush();
  if (!out_) throw_error("{}: cannot be written to; is the disk full?", path_.string());
}

}  // namespace halo
