#include "halo/engine/generate.h"

#include <utility>

#include "halo/base/check.h"

namespace halo {

std::vector<Answer> answer(Scheduler& scheduler, std::vector<Request> requests) {
  std::vector<Answer> answers(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    Request& request = requests[i];
    Answer& out = answers[i];
    request.on_token = [&out, then = std::move(request.on_token)](const TokenEvent& event) {
      out.tokens.push_back(event.token);
      return !then || then(event);
    };
    request.on_finish = [&out, then = std::move(request.on_finish)](const Finish& finish) {
      out.finish = finish;
      if (then) then(finish);
    };
    scheduler.submit(std::move(request));
  }
  scheduler.drain();
  for (const Answer& out : answers) {
    if (out.finish.reason == Finish::Reason::kError) throw_error("{}", out.finish.error);
  }
  return answers;
}

}  // namespace halo
