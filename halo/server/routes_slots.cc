// What runs, and beginnings of prompts that outlive the process.
#include "halo/base/files.h"
#include "halo/server/service.h"

namespace halo {
namespace {

const char* const kName = "name";

// Calls `work` where the scheduler may be asked for its sequences; what it gives is the answer.
template <class Work>
void answer_between_steps(Scheduler& scheduler, const std::shared_ptr<Exchange>& exchange,
                          const SlotFiles& files, Work work) {
  scheduler.do_between_steps([exchange, &files, work = std::move(work)] {
    try {
      exchange->answer(json_answer(work()));
    } catch (const ApiError& error) {
      exchange->answer(error.answer());
    } catch (const std::exception& error) {
      exchange->answer(
          ApiError(400, "slot_unusable", kName, files.without_folder(error.what())).answer());
    }
  });
}

void check_on(const SlotFiles& files) {
  if (!files.is_on())
    throw ApiError(404, "slots_off", "", "slots are off; start the server with --slot-folder");
}

uint64_t salt_in(const Fields& fields) {
  return salt_of(fields.text("cache_salt").value_or(""));
}

}  // namespace

void Service::slots(const std::shared_ptr<Exchange>& exchange) {
  if (!settings_.slots)
    throw ApiError(404, "slots_off", "", "/slots is off; start the server with --slots");
  const SchedulerStats stats = scheduler_.stats();
  json::array saved;
  if (slot_files_.is_on()) {
    for (const SlotFiles::Slot& slot : slot_files_.list())
      saved.push_back(json::object{{kName, slot.name}, {"bytes", slot.bytes}});
  }
  exchange->answer(json_answer(json::object{{"running", stats.running},
                                            {"queued", stats.queued},
                                            {"kept", stats.kept_prefixes},
                                            {"blocks_used", stats.blocks_used},
                                            {"blocks", stats.blocks},
                                            {"states_used", stats.slots_used},
                                            {"states", stats.slots},
                                            {"tokens", stats.cached_sequence_tokens},
                                            {"saved", std::move(saved)}}));
}

void Service::save_slot(const std::shared_ptr<Exchange>& exchange) {
  check_on(slot_files_);
  const json::value body = body_of(*exchange);
  const Fields fields(body);
  const std::string name = fields.required_text(kName);
  const std::filesystem::path path = slot_files_.path(name, kName);
  const uint64_t salt = salt_in(fields);
  std::vector<int64_t> tokens;
  if (fields.has("messages")) {
    tokens = model_.encode(model_.render(read_chat(body)), false, "messages");
  } else {
    json::object prompt;
    for (const char* key : {"prompt", "add_special_tokens"}) {
      if (fields.has(key)) prompt[key] = *fields.find(key);
    }
    const CompletionRequest read = read_completion(prompt);
    if (read.prompts.size() != 1) fields.refuse("prompt", "expected one");
    if (const auto* text = std::get_if<std::string>(&read.prompts.front())) {
      tokens = model_.encode(*text, read.add_special_tokens, "prompt");
    } else {
      tokens = std::get<std::vector<int64_t>>(read.prompts.front());
      model_.check_tokens(tokens, "prompt");
    }
  }
  const Engine& engine = scheduler_.engine();
  const StateBytes bytes = state_bytes(engine.weights(), 1, engine.options().kv_type);
  slot_files_.check_room(name, bytes.slot + bytes.block * static_cast<int64_t>(tokens.size()));
  answer_between_steps(
      scheduler_, exchange, slot_files_,
      [this, path, name, salt, tokens = std::move(tokens), hash = model_.hash()] {
        const int64_t saved = scheduler_.save_prefix(path, tokens, salt, {hash, ""});
        return json::object{{kName, name},
                            {"tokens", saved},
                            {"bytes", static_cast<int64_t>(std::filesystem::file_size(path))}};
      });
}

void Service::restore_slot(const std::shared_ptr<Exchange>& exchange) {
  check_on(slot_files_);
  const json::value body = body_of(*exchange);
  const Fields fields(body);
  answer_between_steps(scheduler_, exchange, slot_files_,
                       [this, name = fields.required_text(kName),
                        path = slot_files_.existing(fields.required_text(kName), kName),
                        salt = salt_in(fields), hash = model_.hash()] {
                         const auto saved = scheduler_.load_prefix(path, salt, hash);
                         return json::object{{kName, name}, {"tokens", saved.tokens.size()}};
                       });
}

void Service::erase_slot(const std::shared_ptr<Exchange>& exchange) {
  check_on(slot_files_);
  const json::value body = body_of(*exchange);
  const Fields fields(body);
  const std::string name = fields.required_text(kName);
  std::filesystem::remove(slot_files_.existing(name, kName));
  exchange->answer(json_answer(json::object{{kName, name}, {"erased", true}}));
}

}  // namespace halo
