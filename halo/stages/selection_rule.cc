#include "halo/stages/selection_rule.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <span>
#include <sstream>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/nearest.h"
#include "halo/base/random.h"

namespace halo {

int64_t default_keep(int64_t num_layers) {
  return std::max<int64_t>(1, num_layers / 4);
}

std::vector<double> halo_scores(const std::vector<double>& recall,
                                const std::vector<double>& commonsense) {
  HALO_CHECK(!recall.empty() && recall.size() == commonsense.size(),
             "halo_scores: {} recall scores, {} commonsense scores", recall.size(),
             commonsense.size());
  const double best_recall = *std::max_element(recall.begin(), recall.end());
  const double best_commonsense = *std::max_element(commonsense.begin(), commonsense.end());
  std::vector<double> scores;
  for (size_t i = 0; i < recall.size(); ++i) {
    scores.push_back(
        std::min(50.0, (best_recall - recall[i]) / (best_commonsense - commonsense[i] + 1e-10)));
  }
  return scores;
}

std::vector<int64_t> top_layers(const std::vector<double>& scores, int64_t k) {
  HALO_CHECK(0 < k && k <= static_cast<int64_t>(scores.size()), "cannot keep {} of {} layers", k,
             scores.size());
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  order.resize(static_cast<size_t>(k));
  std::sort(order.begin(), order.end());
  return order;
}

std::vector<int64_t> even_layers(int64_t num_layers, int64_t k) {
  std::vector<int64_t> layers;
  for (int64_t j = 0; j < k; ++j) layers.push_back((2 * j + 1) * num_layers / (2 * k));
  return layers;
}

std::vector<int64_t> random_layers(int64_t num_layers, int64_t k, uint64_t seed) {
  std::vector<int64_t> layers = Random(seed, "select.random").permutation(num_layers);
  layers.resize(static_cast<size_t>(k));
  std::sort(layers.begin(), layers.end());
  return layers;
}

std::vector<std::vector<int64_t>> all_sets(int64_t n, int64_t k) {
  std::vector<std::vector<int64_t>> sets;
  std::vector<int64_t> set(static_cast<size_t>(k));
  std::iota(set.begin(), set.end(), 0);
  while (true) {
    sets.push_back(set);
    int64_t i = k - 1;
    while (i >= 0 && set[i] == n - k + i) --i;
    if (i < 0) return sets;
    ++set[i];
    for (int64_t j = i + 1; j < k; ++j) set[j] = set[j - 1] + 1;
  }
}

double count_sets(int64_t n, int64_t k) {
  double count = 1;
  for (int64_t i = 0; i < k; ++i) count = count * double(n - i) / double(i + 1);
  return std::round(count);
}

size_t choose_set(const std::vector<SetFigures>& sets) {
  HALO_CHECK(!sets.empty(), "choose_set: no sets");
  const auto best = std::max_element(
      sets.begin(), sets.end(),
      [](const SetFigures& a, const SetFigures& b) { return a.needle < b.needle; });
  const double error = std::isfinite(best->needle_error) ? best->needle_error : 0;
  const double least = best->needle - std::max(error, kSameNeedle);
  size_t chosen = static_cast<size_t>(best - sets.begin());
  for (size_t i = 0; i < sets.size(); ++i) {
    if (sets[i].needle >= least && sets[i].kl < sets[chosen].kl) chosen = i;
  }
  return chosen;
}

namespace {

double share(double chosen, double nothing) {
  if (!std::isfinite(chosen) || !std::isfinite(nothing)) return std::nan("");
  if (chosen == nothing) return 1;
  return nothing == 0 ? std::numeric_limits<double>::infinity() : chosen / nothing;
}

}  // namespace

bool above_chance(double score, double standard_error, double chance) {
  const double error = std::isnan(standard_error) ? 0 : standard_error;
  return score - chance > 3 * error;
}

double kept_loss_share(const SetFigures& chosen, const SetFigures& nothing_kept) {
  const double kl = share(chosen.kl, nothing_kept.kl);
  const double needle = share(-chosen.needle, -nothing_kept.needle);
  if (std::isnan(kl) || std::isnan(needle)) return std::nan("");
  return kl > kMostKlShare ? kl : std::min(kl, needle);
}

std::vector<int64_t> search_sets(int64_t n, int64_t k, const ScoreSets& score) {
  std::map<std::vector<int64_t>, SetFigures> known;
  const auto best_of = [&](const std::vector<std::vector<int64_t>>& sets) {
    std::vector<std::vector<int64_t>> asked;
    for (const auto& set : sets) {
      if (!known.count(set)) asked.push_back(set);
    }
    const std::vector<SetFigures> answers = score(asked);
    for (size_t i = 0; i < asked.size(); ++i) known[asked[i]] = answers[i];
    std::vector<SetFigures> figures;
    for (const auto& set : sets) figures.push_back(known[set]);
    return sets[choose_set(figures)];
  };
  const auto with = [](std::vector<int64_t> set, int64_t layer) {
    set.insert(std::upper_bound(set.begin(), set.end(), layer), layer);
    return set;
  };
  std::vector<int64_t> chosen;
  while (static_cast<int64_t>(chosen.size()) < k) {
    std::vector<std::vector<int64_t>> sets;
    for (int64_t layer = 0; layer < n; ++layer) {
      if (!std::binary_search(chosen.begin(), chosen.end(), layer)) {
        sets.push_back(with(chosen, layer));
      }
    }
    chosen = best_of(sets);
  }
  for (size_t i = 0; i < chosen.size(); ++i) {
    std::vector<int64_t> rest = chosen;
    rest.erase(rest.begin() + static_cast<int64_t>(i));
    std::vector<std::vector<int64_t>> sets = {chosen};
    for (int64_t layer = 0; layer < n; ++layer) {
      if (!std::binary_search(chosen.begin(), chosen.end(), layer)) {
        sets.push_back(with(rest, layer));
      }
    }
    chosen = best_of(sets);
  }
  return chosen;
}

int64_t most_searched_sets(int64_t n, int64_t k) {
  int64_t count = 0;
  for (int64_t kept = 0; kept < k; ++kept) count += n - kept;
  return count + k * (n - k);
}

namespace {

std::vector<std::string> split(const std::string& line) {
  std::vector<std::string> cells;
  std::istringstream stream(line);
  for (std::string cell; std::getline(stream, cell, ',');) {
    const size_t begin = cell.find_first_not_of(" \t\r\""), end = cell.find_last_not_of(" \t\r\"");
    cells.push_back(begin == std::string::npos ? "" : cell.substr(begin, end - begin + 1));
  }
  return cells;
}

double number(const std::string& text, const std::string& where) {
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != text.size() || !std::isfinite(value)) {
    throw_error("{}: '{}' is not a number", where, text);
  }
  return value;
}

// Positions of the named columns in `header`.
std::vector<size_t> columns(const std::vector<std::string>& names,
                            const std::vector<std::string>& header, const std::string& file) {
  std::vector<size_t> out;
  for (const std::string& name : names) {
    const auto it = std::find(header.begin() + 1, header.end(), name);
    if (it == header.end()) {
      throw_error("{}: no column '{}'; did you mean '{}'?", file, name,
                  nearest(name, {header.begin() + 1, header.end()}));
    }
    out.push_back(static_cast<size_t>(it - header.begin()));
  }
  return out;
}

double mean_of(const std::vector<double>& row, const std::vector<size_t>& columns) {
  double sum = 0;
  for (size_t c : columns) sum += row[c];
  return sum / static_cast<double>(columns.size());
}

}  // namespace

namespace {

// Standard error of the mean of columns, each a share of `items`.
double error_of(const std::vector<double>& row, const std::vector<size_t>& columns,
                std::span<const int64_t> items) {
  double sum = 0;
  for (size_t c = 0; c < columns.size(); ++c) {
    const double share = std::clamp(row[columns[c]], 0.0, 1.0);
    sum += share * (1 - share) / static_cast<double>(items[c]);
  }
  return std::sqrt(sum) / static_cast<double>(columns.size());
}

// One number a column.
std::vector<int64_t> items_by_column(const std::vector<int64_t>& items, size_t columns) {
  if (items.size() == 1) return std::vector<int64_t>(columns, items[0]);
  if (items.size() != columns) {
    throw UsageError(fmt::format("--items has {} numbers: give one, or one a column, {}",
                                 items.size(), columns));
  }
  return items;
}

}  // namespace

std::vector<double> keep_probability(const SweepTable& table, int64_t k, int64_t draws) {
  HALO_CHECK(table.recall_error.size() == table.recall.size(),
             "keep_probability: the table has no standard errors");
  std::vector<double> kept(table.recall.size(), 0);
  for (int64_t d = 0; d < draws; ++d) {
    const Random random(1, "select.scores", static_cast<uint64_t>(d));
    std::vector<double> recall = table.recall, commonsense = table.commonsense;
    for (size_t i = 0; i < recall.size(); ++i) {
      recall[i] += table.recall_error[i] * random.normal(2 * i);
      commonsense[i] += table.commonsense_error[i] * random.normal(2 * i + 1);
    }
    for (const int64_t layer : top_layers(halo_scores(recall, commonsense), k)) {
      kept[layer] += 1 / static_cast<double>(draws);
    }
  }
  return kept;
}

SweepTable read_sweep(const std::filesystem::path& path, const std::vector<std::string>& recall,
                      const std::vector<std::string>& commonsense,
                      const std::vector<int64_t>& items) {
  const std::string file = path.string();
  std::istringstream stream(read_file(path));
  std::string line;
  std::getline(stream, line);
  const std::vector<std::string> header = split(line);
  if (header.size() < 3 || header[0] != "layer") {
    throw_error("{}:1: the first column must be 'layer', with task scores behind it", file);
  }
  if (recall.empty() != commonsense.empty()) {
    throw UsageError("--recall and --commonsense are given together or not at all");
  }
  std::vector<size_t> recall_columns = columns(recall, header, file);
  std::vector<size_t> commonsense_columns = columns(commonsense, header, file);
  if (recall.empty()) {
    if (header.size() % 2 == 0) {
      throw_error("{}:1: {} task columns do not split in halves; give --recall and --commonsense",
                  file, header.size() - 1);
    }
    const size_t half = (header.size() - 1) / 2;
    for (size_t c = 1; c < header.size(); ++c) {
      (c <= half ? recall_columns : commonsense_columns).push_back(c);
    }
  }
  std::vector<int64_t> numbers;
  if (!items.empty()) {
    numbers = items_by_column(items, recall_columns.size() + commonsense_columns.size());
  }
  std::map<int64_t, std::vector<double>> rows;
  for (int64_t number_of_line = 2; std::getline(stream, line); ++number_of_line) {
    const std::vector<std::string> cells = split(line);
    const std::string where = fmt::format("{}:{}", file, number_of_line);
    if (cells.empty() || (cells.size() == 1 && cells[0].empty()) || cells[0] == "original")
      continue;
    if (cells.size() != header.size()) {
      throw_error("{}: {} cells, the header has {}", where, cells.size(), header.size());
    }
    std::vector<double> values;
    for (const std::string& cell : cells) values.push_back(number(cell, where));
    const double layer = values[0];
    if (layer < 0 || layer != std::floor(layer) || layer > 1e6) {
      throw_error("{}: '{}' is not a layer", where, cells[0]);
    }
    if (!rows.emplace(static_cast<int64_t>(layer), std::move(values)).second) {
      throw_error("{}: layer {} is there twice", where, cells[0]);
    }
  }
  SweepTable table;
  for (const auto& [layer, row] : rows) {
    if (layer != static_cast<int64_t>(table.recall.size())) {
      throw_error("{}: layer {} is missing", file, table.recall.size());
    }
    if (!numbers.empty()) {
      const std::span all(numbers);
      table.recall_error.push_back(error_of(row, recall_columns, all));
      table.commonsense_error.push_back(
          error_of(row, commonsense_columns, all.subspan(recall_columns.size())));
    }
    table.recall.push_back(mean_of(row, recall_columns));
    table.commonsense.push_back(mean_of(row, commonsense_columns));
  }
  if (table.recall.empty()) throw_error("{}: no layers", file);
  return table;
}

}  // namespace halo
