// The list that settings() makes.
#include "halo/base/settings.h"

#include <algorithm>
#include <utility>

namespace halo {
namespace {

Effect combined(Effect section, Effect setting) {
  return section == Effect::kNone ? section : setting;
}

}  // namespace

const Setting* Settings::find(std::string_view key) const {
  const auto found = std::ranges::find(all_, key, &Setting::key);
  return found == all_.end() ? nullptr : &*found;
}

const Setting* Settings::find_old(std::string_view was) const {
  const auto found = std::ranges::find(all_, was, &Setting::was);
  return was.empty() || found == all_.end() ? nullptr : &*found;
}

Settings::Place Settings::enter(std::string_view name, const About& about) {
  Place outside = place_;
  const std::string_view old_name = about.was.empty() ? name : about.was;
  place_ = {outside.prefix + std::string(name) + ".",
            outside.old_prefix + std::string(old_name) + ".",
            combined(outside.effect, about.effect)};
  return outside;
}

void Settings::add(std::string_view name, Setting::Value value, const About& about) {
  Setting setting;
  setting.key = place_.prefix + std::string(name);
  setting.was = place_.old_prefix + std::string(about.was.empty() ? name : about.was);
  if (setting.was == setting.key) setting.was.clear();
  setting.value = std::move(value);
  setting.about = about;
  setting.about.effect = combined(place_.effect, about.effect);
  all_.push_back(std::move(setting));
}

}  // namespace halo
