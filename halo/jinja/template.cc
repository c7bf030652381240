#include "halo/jinja/template.h"

#include "halo/jinja/parser.h"
#include "halo/jinja/renderer.h"

namespace halo::jinja {

struct Template::Parsed {
  Source source;
  Block block;
};

Template::Template(std::string_view source, std::string name) {
  auto parsed = std::make_shared<Parsed>(Parsed{Source(source, std::move(name)), Block()});
  Budget budget{TemplateLimits()};
  parsed->block = parse_template(parsed->source, budget);
  parsed_ = std::move(parsed);
}

std::string Template::render(const boost::json::object& variables, const TemplateLimits& limits,
                             std::chrono::system_clock::time_point now) const {
  Budget budget(limits);
  std::vector<std::pair<std::string, Value>> values;
  for (const auto& [name, value] : variables) {
    try {
      values.emplace_back(name, from_json(budget, value));
    } catch (const Error& error) {
      throw_error("{}: {}", std::string_view(name), error.what());
    }
  }
  return render_template(parsed_->source, parsed_->block, std::move(values), budget, now);
}

}  // namespace halo::jinja
