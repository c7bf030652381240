#include "halo/data/loader.h"

#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "halo/base/check.h"
#include "halo/base/files.h"
#include "halo/base/settings_io.h"
#include "halo/data/mixture.h"
#include "halo/data/token_stream.h"
#include "halo/kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace halo {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kShardSuffix = ".halotok";

std::vector<fs::path> expand_all(const std::vector<std::string>& entries) {
  std::vector<fs::path> paths;
  for (const auto& entry : entries) {
    for (auto& path : expand_shards(entry)) paths.push_back(std::move(path));
  }
  return paths;
}

}  // namespace

void check_recipe(const DataRecipe& recipe) {
  if (recipe.shards.empty() && (recipe.needle_share < 1 || recipe.haystack.empty())) {
    throw_error("data.shards is empty; name token shards made by 'halo data pack'");
  }
  if (!recipe.weights.empty() && recipe.weights.size() != recipe.shards.size()) {
    throw_error("data.weights has {} entries for the {} of data.shards", recipe.weights.size(),
                recipe.shards.size());
  }
}

std::vector<fs::path> expand_shards(const std::string& entry) {
  const fs::path path(entry);
  const bool folder = fs::is_directory(path);
  if (!folder && fs::exists(path)) return {path};
  const fs::path parent = folder                   ? path
                          : path.has_parent_path() ? path.parent_path()
                                                   : fs::path(".");
  const std::string pattern = folder ? fmt::format("*{}", kShardSuffix) : path.filename().string();
  std::vector<fs::path> paths;
  if (fs::is_directory(parent)) {
    for (const auto& item : fs::directory_iterator(parent)) {
      const bool matches = fnmatch(pattern.c_str(), item.path().filename().c_str(), 0) == 0;
      if (matches && item.is_regular_file()) paths.push_back(item.path());
    }
  }
  if (paths.empty()) {
    throw_error("{}: no token shard there; make some with 'halo data pack'", entry);
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::string data_hash(const DataRecipe& recipe) {
  // In the words that the first version had, so that its runs can be resumed.
  DataRecipe mixture = recipe;
  mixture.shards.clear();
  mixture.haystack.clear();
  std::string text;
  for (const Setting& setting : settings_of(mixture).all()) {
    if (setting.key == "answers_alone" && !recipe.answers_alone) continue;
    std::string value = value_to_toml(setting);
    if (setting.key == "packing" && recipe.packing == Packing::kConcat) value = "\"paper\"";
    if (setting.key == "long_context") value = "\"\"";  // a check, no part of the batches
    text += fmt::format("{} = {}\n", setting.key, value);
  }
  const auto add = [&text](const char* use, const std::vector<std::string>& entries) {
    for (const std::string& entry : entries) {
      text += fmt::format("{}\n", use);
      for (const fs::path& path : expand_shards(entry)) {
        const TokenShard shard(path);
        const TokenShardHeader& h = shard.header();
        text += fmt::format("{} {} {} {} {} {}\n", fs::file_size(path), h.tokenizer_hash,
                            h.vocab_size, h.num_tokens, h.num_documents, h.provenance);
      }
    }
  };
  add("shards", recipe.shards);
  add("haystack", recipe.haystack);
  return hash_hex(std::as_bytes(std::span(text)));
}

RowSplit::RowSplit(const std::vector<double>& weights) {
  std::vector<int64_t> open(weights.size());
  std::iota(open.begin(), open.end(), 0);
  for (const int64_t part : open) nodes_.push_back({weights[part], part, -1, -1});
  const auto heavier = [&](int64_t a, int64_t b) { return nodes_[a].weight > nodes_[b].weight; };
  // Huffman's tree: the two lightest first, so that heavy parts sit near the root, where a split is
  // most exact.
  while (open.size() > 1) {
    std::stable_sort(open.begin(), open.end(), heavier);
    const int64_t right = open.back(), left = open[open.size() - 2];
    open.resize(open.size() - 2);
    open.push_back(static_cast<int64_t>(nodes_.size()));
    nodes_.push_back({nodes_[left].weight + nodes_[right].weight, -1, left, right});
  }
  HALO_CHECK(!nodes_.empty() && nodes_.back().weight > 0, "row split: no part has a weight");
}

RowSplit::Place RowSplit::place(int64_t row) const {
  const Node* node = &nodes_.back();
  while (node->part < 0) {
    const double share = node->weight > 0 ? nodes_[node->left].weight / node->weight : 1;
    const auto lefts = [share](int64_t rows) {
      return static_cast<int64_t>(std::floor(static_cast<double>(rows) * share + 0.5));
    };
    const int64_t before = lefts(row);
    const bool goes_left = lefts(row + 1) > before;
    row = goes_left ? before : row - before;
    node = &nodes_[goes_left ? node->left : node->right];
  }
  return {node->part, row};
}

Mixture open_mixture(const DataRecipe& recipe, const std::string& tokenizer_hash, uint64_t seed) {
  Mixture out;
  if (recipe.shards.empty()) return out;
  const auto add = [&](const std::vector<fs::path>& paths, double weight) {
    out.parts.push_back(std::make_unique<TokenStream>(paths, tokenizer_hash, seed,
                                                      fmt::format("shuffle {}", out.parts.size())));
    out.weights.push_back(weight);
  };
  if (recipe.weights.empty()) add(expand_all(recipe.shards), 1);
  for (size_t i = 0; i < recipe.weights.size(); ++i) {
    add(expand_shards(recipe.shards[i]), recipe.weights[i]);
  }
  return out;
}

Loader::Loader(const DataRecipe& recipe, const Tokenizer& tokenizer,
               const std::string& tokenizer_hash, const LoaderPlan& plan)
    : recipe_(recipe), plan_(plan) {
  HALO_CHECK(plan.sequence_length >= 2 && plan.rows_per_step >= 1,
             "loader: {} rows of {} tokens a step", plan.rows_per_step, plan.sequence_length);
  check_recipe(recipe);
  Mixture mixture = open_mixture(recipe, tokenizer_hash, plan.seed);
  parts_ = std::move(mixture.parts);
  std::vector<double> weights = std::move(mixture.weights);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight *= (1 - recipe.needle_share) / total;
  if (recipe.needle_share > 0) {
    needles_.emplace(tokenizer, plan.document_begin, recipe.document_end);
    if (plan.sequence_length < needles_->min_length()) {
      throw_error(
          "data.needle_share: a needle document takes {} tokens, more than the sequence's {}",
          needles_->min_length(), plan.sequence_length);
    }
    haystack_ = std::make_unique<TokenStream>(
        expand_all(recipe.haystack.empty() ? recipe.shards : recipe.haystack), tokenizer_hash,
        plan.seed, "haystack");
    weights.push_back(recipe.needle_share);
  }
  split_.emplace(weights);
}

Loader::~Loader() = default;
Loader::Loader(Loader&&) noexcept = default;
Loader& Loader::operator=(Loader&&) noexcept = default;

int64_t Loader::num_tokens() const {
  int64_t sum = 0;
  for (const auto& part : parts_) sum += part->num_tokens();
  return sum;
}

int64_t Loader::num_documents() const {
  int64_t sum = 0;
  for (const auto& part : parts_) sum += part->num_documents();
  return sum;
}

void Loader::fill_needle_row(int64_t row, int64_t* tokens, uint8_t* marks) const {
  const int64_t length = plan_.sequence_length;
  const int64_t period = haystack_->num_tokens();
  const int64_t begin = Random(plan_.seed, "haystack", row).below(0, period);
  std::vector<uint8_t> unused(length);
  const std::vector<int64_t> window =
      needles_->haystack_text(length, period, [&](int64_t position, int64_t n, int64_t* out) {
        haystack_->copy(begin + position, n, out, unused.data());
      });
  if (window.empty()) throw_error("data.haystack holds nothing but begin and end tokens");
  const NeedleDocument document =
      needles_->compose(window, length, Random(plan_.seed, "needle", row), NeedlePool::kTraining);
  std::copy(document.tokens.begin(), document.tokens.end(), tokens);
  std::copy(document.marks.begin(), document.marks.end(), marks);
}

float Loader::answer_weight(int64_t answers) const {
  if (recipe_.needle_share == 0) return 0;
  return static_cast<float>(recipe_.answer_weight * static_cast<double>(plan_.sequence_length) /
                            (static_cast<double>(answers) * recipe_.needle_share));
}

bool Loader::is_needle(const RowSplit::Place& place) const {
  return place.part == static_cast<int64_t>(parts_.size());
}

std::vector<int64_t> Loader::piece_ends(const RowSplit::Place& place) const {
  const int64_t length = plan_.sequence_length;
  std::vector<int64_t> ends;
  if (!is_needle(place) && recipe_.packing == Packing::kCut) {
    ends = parts_[place.part]->document_ends(place.row * length, length);
  }
  if (ends.empty() || ends.back() != length) ends.push_back(length);
  return ends;
}

TrainBatch Loader::step(int64_t step, int64_t first_row, int64_t rows) const {
  HALO_CHECK(step >= 0 && first_row >= 0 && rows >= 0 && first_row + rows <= plan_.rows_per_step,
             "loader: step {}, rows {} to {} of {}", step, first_row, first_row + rows,
             plan_.rows_per_step);
  const int64_t length = plan_.sequence_length;
  TrainBatch batch;
  batch.rows = rows;
  batch.tokens = at::empty({rows * length}, at::kLong);
  batch.targets = at::empty({rows * length}, at::kLong);
  batch.token_weights = at::ones({rows * length}, at::kFloat);
  batch.offsets = {0};
  std::vector<uint8_t> marks(length);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = step * plan_.rows_per_step + first_row + i;
    const RowSplit::Place place = split_->place(row);
    int64_t* tokens = batch.tokens.data_ptr<int64_t>() + i * length;
    int64_t* targets = batch.targets.data_ptr<int64_t>() + i * length;
    float* weights = batch.token_weights.data_ptr<float>() + i * length;
    int64_t answers = kNeedleDigits;  // a needle's, where shards hold some
    if (is_needle(place)) {
      fill_needle_row(row, tokens, marks.data());
      answers = std::ranges::count(marks, static_cast<uint8_t>(NeedleMark::kAnswer));
    } else {
      parts_[place.part]->copy(place.row * length, length, tokens, marks.data());
    }
    const float answer_weight = this->answer_weight(answers);
    for (int64_t t = 0; t + 1 < length; ++t) {
      const auto mark = static_cast<NeedleMark>(marks[t + 1]);
      targets[t] = mark == NeedleMark::kOwnDigits ? kIgnoreTarget : tokens[t + 1];
      if (mark == NeedleMark::kAnswer) weights[t] += answer_weight;
      if (mark == NeedleMark::kAsked && recipe_.answers_alone) {
        targets[t] = kIgnoreTarget;
        weights[t] = 0;
      }
    }
    for (const int64_t end : piece_ends(place)) {
      targets[end - 1] = kIgnoreTarget;
      batch.offsets.push_back(i * length + end);
    }
  }
  return batch;
}

std::vector<double> Loader::token_share_in_view(const std::vector<double>& fractions,
                                                int64_t rows) const {
  HALO_CHECK(rows > 0, "loader: no rows to look at");
  const int64_t length = plan_.sequence_length;
  std::vector<double> counts(fractions.size(), 0);
  int64_t seen = 0;
  for (int64_t row = 0; seen < rows; ++row) {
    const RowSplit::Place place = split_->place(row);
    if (is_needle(place) && recipe_.needle_share < 1) continue;
    ++seen;
    int64_t begin = 0;
    for (const int64_t end : piece_ends(place)) {
      for (size_t f = 0; f < fractions.size(); ++f) {
        const auto needed = static_cast<int64_t>(std::floor(fractions[f] * length));
        counts[f] += static_cast<double>(std::max<int64_t>(0, end - begin - needed));
      }
      begin = end;
    }
  }
  for (double& count : counts) count /= static_cast<double>(rows * length);
  return counts;
}

Prefetcher::Prefetcher(std::function<TrainBatch(int64_t)> produce, int64_t first)
    : produce_(std::move(produce)), index_(first) {
  start();
}

void Prefetcher::start() {
  pending_ = std::async(std::launch::async, [this, index = index_] { return produce_(index); });
}

TrainBatch Prefetcher::next() {
  TrainBatch batch = pending_.get();
  ++index_;
  start();
  return batch;
}

}  // namespace halo
