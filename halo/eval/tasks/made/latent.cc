#include "halo/eval/tasks/made/latent.h"

#include <fmt/format.h>

#include <array>
#include <string_view>

#include "halo/eval/tasks/made/hay.h"

namespace halo::made {
namespace {

struct Landmark {
  std::string_view name, city;
};

constexpr auto kLandmarks = std::to_array<Landmark>({
    {"the Eiffel Tower", "Paris"},
    {"Big Ben", "London"},
    {"the Colosseum", "Rome"},
    {"the Brandenburg Gate", "Berlin"},
    {"the Acropolis", "Athens"},
    {"the Kremlin", "Moscow"},
    {"the Sagrada Familia", "Barcelona"},
    {"the Statue of Liberty", "New York"},
    {"the Golden Gate Bridge", "San Francisco"},
    {"the Hagia Sophia", "Istanbul"},
    {"the Burj Khalifa", "Dubai"},
    {"the Forbidden City", "Beijing"},
    {"Table Mountain", "Cape Town"},
    {"the Charles Bridge", "Prague"},
    {"the Little Mermaid statue", "Copenhagen"},
    {"the Space Needle", "Seattle"},
});

constexpr auto kPeople = std::to_array<std::string_view>(
    {"Alma", "Bruno", "Clara", "Dimitri", "Edith", "Felix", "Greta", "Hugo", "Irene", "Jonas",
     "Karla", "Ludwig", "Mina", "Nils", "Olga", "Pavel"});

}  // namespace

Compose latent_needle(const std::vector<std::string>& essays, const Random& random) {
  return [&essays, random](int64_t hay) {
    constexpr int64_t kNeedles = 4;
    Draws draws(random);
    const std::vector<int64_t> places = draws.sample(kLandmarks.size(), kNeedles);
    const std::vector<int64_t> people = draws.sample(kPeople.size(), kNeedles);
    std::vector<std::string> needles;
    for (int64_t i = 0; i < kNeedles; ++i) {
      needles.push_back(
          fmt::format("{} lives right beside {}.", kPeople[people[i]], kLandmarks[places[i]].name));
    }
    draws.shuffle(needles);
    const std::string_view city = kLandmarks[places[0]].city;
    return Prompt{fmt::format("Some people are mentioned in the following text. Remember where "
                              "they live.\n{}\nQuestion: Who of them must have been to {}? Answer: "
                              "The one who must have been to {} is",
                              hide_in_essays(essays, hay, needles, draws), city, city),
                  {std::string(kPeople[people[0]])}};
  };
}

}  // namespace halo::made
