#include "halo/data/loader.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <span>

#include "halo/base/files.h"
#include "halo/data/tokenizer_testing.h"

namespace halo {
namespace {

using test::error_of;
using test::Folder;
using test::tokenizer;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr auto kHash = "0123";
constexpr int64_t kEnd = 1;

// Document d is first + 2, first + 3, ... and an end token.
void write_shard(const std::filesystem::path& path, const std::vector<int64_t>& lengths,
                 int64_t first = 0, const std::string& hash = kHash) {
  TokenShardWriter writer(path, hash, 70'000, "{}");
  for (const int64_t length : lengths) {
    std::vector<int64_t> tokens;
    for (int64_t t = 0; t + 1 < length; ++t) tokens.push_back(2 + first++);
    tokens.push_back(kEnd);
    writer.add_document(tokens);
  }
  writer.finish();
}

DataRecipe recipe_of(const std::filesystem::path& path) {
  DataRecipe recipe;
  recipe.shards = {path.string()};
  return recipe;
}

Loader make(const DataRecipe& recipe, int64_t length, int64_t rows = 4, uint64_t seed = 1) {
  return Loader(recipe, tokenizer(), kHash, {length, rows, seed});
}

std::vector<int64_t> values(const at::Tensor& tensor) {
  return {tensor.data_ptr<int64_t>(), tensor.data_ptr<int64_t>() + tensor.numel()};
}

bool equal(const TrainBatch& a, const TrainBatch& b) {
  return a.tokens.equal(b.tokens) && a.offsets == b.offsets && a.targets.equal(b.targets) &&
         a.token_weights.equal(b.token_weights) && a.rows == b.rows;
}

TEST(Loader, CutsAtDocumentEndsAndMasksThere) {
  const Folder folder;
  write_shard(folder / "a.halotok", {3, 5, 4, 9, 2, 7});
  const auto batch = make(recipe_of(folder / "a.halotok"), 10, 3).step(0);
  EXPECT_EQ(batch.rows, 3);
  const auto tokens = values(batch.tokens), targets = values(batch.targets);
  ASSERT_EQ(tokens.size(), 30);
  std::set<int64_t> ends;
  for (int64_t t = 0; t < 30; ++t) {
    if (tokens[t] == kEnd || t % 10 == 9) ends.insert(t + 1);
    EXPECT_EQ(targets[t], ends.contains(t + 1) ? -1 : tokens[t + 1]) << t;
  }
  std::vector<int64_t> offsets{0};
  offsets.insert(offsets.end(), ends.begin(), ends.end());
  EXPECT_EQ(batch.offsets, offsets);
  EXPECT_TRUE(batch.token_weights.eq(1).all().item<bool>());
}

TEST(Loader, PaperPackingNeverCutsARow) {
  const Folder folder;
  write_shard(folder / "a.halotok", {3, 5, 4, 9, 2, 7});
  auto recipe = recipe_of(folder / "a.halotok");
  const auto cut = make(recipe, 10, 3).step(0);
  recipe.packing = Packing::kConcat;
  const auto batch = make(recipe, 10, 3).step(0);
  EXPECT_TRUE(batch.tokens.equal(cut.tokens));
  EXPECT_THAT(batch.offsets, ElementsAre(0, 10, 20, 30));
  const auto tokens = values(batch.tokens), targets = values(batch.targets);
  for (int64_t t = 0; t < 30; ++t) EXPECT_EQ(targets[t], t % 10 == 9 ? -1 : tokens[t + 1]);
}

TEST(Loader, EveryEpochHasEveryDocumentOnceInAnOrderOfItsOwn) {
  const Folder folder;
  write_shard(folder / "a.halotok", {3, 5, 4});
  write_shard(folder / "b.halotok", {9, 2, 7, 6}, 1000);
  const auto loader = make(recipe_of(folder.path()), 7, 1);
  EXPECT_EQ(loader.num_documents(), 7);
  ASSERT_EQ(loader.num_tokens(), 36);
  std::vector<int64_t> stream;
  for (int64_t step = 0; step * 7 < 36 * 4; ++step) {
    const auto tokens = values(loader.step(step).tokens);
    stream.insert(stream.end(), tokens.begin(), tokens.end());
  }
  std::vector<int64_t> whole;  // an epoch in file order
  for (int64_t t = 0; t < 9; ++t) whole.push_back(2 + t);
  for (int64_t t = 0; t < 20; ++t) whole.push_back(1002 + t);
  whole.insert(whole.end(), 7, kEnd);
  std::set<std::vector<int64_t>> orders;
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    const std::vector<int64_t> part(stream.begin() + epoch * 36, stream.begin() + epoch * 36 + 36);
    EXPECT_THAT(part, testing::UnorderedElementsAreArray(whole));
    for (int64_t t = 1; t < 36; ++t) {
      // Within a document tokens follow each other.
      if (part[t - 1] != kEnd && part[t] != kEnd) {
        EXPECT_EQ(part[t], part[t - 1] + 1);
      }
    }
    orders.insert(part);
  }
  EXPECT_GT(orders.size(), 2);
}

DataRecipe mixture(const Folder& folder) {
  write_shard(folder / "a.halotok", {30, 50, 40});
  write_shard(folder / "b.halotok", {90, 20, 70}, 10'000);
  DataRecipe recipe;
  recipe.shards = {(folder / "a.halotok").string(), (folder / "b*").string()};
  recipe.weights = {3, 1};
  recipe.needle_share = 0.45;
  recipe.answer_weight = 0.5;
  return recipe;
}

TEST(Loader, AFreshLoaderContinuesWhereAnotherStood) {
  const Folder folder;
  const auto recipe = mixture(folder);
  const auto first = make(recipe, 128);
  std::vector<TrainBatch> batches;
  for (int64_t step = 0; step < 12; ++step) batches.push_back(first.step(step));
  for (const int64_t step : {11, 3, 7}) {
    EXPECT_TRUE(equal(make(recipe, 128).step(step), batches[step])) << step;
  }
  EXPECT_FALSE(equal(make(recipe, 128, 4, 2).step(3), batches[3]));
  // Two micro-batches are the step.
  const auto head = first.step(5, 0, 1), tail = first.step(5, 1, 3);
  EXPECT_TRUE(at::cat({head.tokens, tail.tokens}).equal(batches[5].tokens));
  EXPECT_TRUE(at::cat({head.targets, tail.targets}).equal(batches[5].targets));
}

TEST(Loader, MixesWithinOneRowOfTheShares) {
  const Folder folder;
  const auto loader = make(mixture(folder), 128, 1);
  const std::vector<double> shares{0.55 * 0.75, 0.55 * 0.25, 0.45};
  std::vector<int64_t> counts(3);
  for (int64_t row = 0; row < 300; ++row) {
    const auto batch = loader.step(row);
    const bool needle = batch.token_weights.gt(1).any().item<bool>();
    ++counts[needle ? 2 : batch.tokens.max().item<int64_t>() > 10'000];
    for (int i = 0; i < 3; ++i) {
      EXPECT_LE(std::abs(static_cast<double>(counts[i]) - shares[i] * (row + 1)), 1 + 1e-9) << row;
    }
  }
}

TEST(RowSplit, CountsRowsWithinParts) {
  for (const auto& weights :
       {std::vector<double>{1}, {0, 1}, {1, 2, 4, 8}, {0.5, 0.3, 0.1, 0.07, 0.03}}) {
    const RowSplit split(weights);
    double total = 0;
    for (const double weight : weights) total += weight;
    std::vector<int64_t> counts(weights.size());
    for (int64_t row = 0; row < 2000; ++row) {
      const auto place = split.place(row);
      EXPECT_EQ(place.row, counts[place.part]++);
      for (size_t i = 0; i < weights.size(); ++i) {
        EXPECT_LT(std::abs(static_cast<double>(counts[i]) - weights[i] / total * (row + 1)), 2);
      }
    }
  }
}

TEST(Loader, NeedleRowsAreOneDocumentEach) {
  const Folder folder;
  auto recipe = mixture(folder);
  recipe.needle_share = 1;
  const auto batch = make(recipe, 128, 6).step(0);
  EXPECT_THAT(batch.offsets, ElementsAre(0, 128, 256, 384, 512, 640, 768));
  // All rows have 7 digits in 128 tokens: what makes their mean count half as much as the mean over
  // all tokens.
  const auto answer_weight = static_cast<float>(1 + 0.5 * 128 / 7);
  const auto tokens = values(batch.tokens), targets = values(batch.targets);
  const float* weights = batch.token_weights.data_ptr<float>();
  std::set<std::vector<int64_t>> numbers;
  for (int64_t row = 0; row < 6; ++row) {
    const int64_t begin = row * 128;
    EXPECT_EQ(tokens[begin + 127], tokenizer().document_end());
    const std::vector<int64_t> number(&tokens[begin + 120], &tokens[begin + 127]);
    numbers.insert(number);
    int64_t masked = 0;
    for (int64_t t = 0; t < 127; ++t) {
      const bool answer = t >= 119 && t < 126;
      EXPECT_EQ(weights[begin + t], answer ? answer_weight : 1.0f);
      if (targets[begin + t] == -1) {
        ASSERT_LT(masked, 7);
        EXPECT_EQ(tokens[begin + t + 1], number[masked++]);
      } else {
        EXPECT_EQ(targets[begin + t], tokens[begin + t + 1]);
      }
    }
    EXPECT_EQ(masked, 7);
    EXPECT_EQ(targets[begin + 127], -1);
  }
  EXPECT_EQ(numbers.size(), 6);
}

// A shard of one document with marks (token_shard.h).
DataRecipe marked(const Folder& folder, const std::vector<uint8_t>& marks) {
  TokenShardWriter writer(folder / "a.halotok", kHash, 100, "{}");
  writer.add_document(std::vector<int64_t>{5, 6, 7, 8, 9, kEnd}, marks);
  writer.finish();
  return recipe_of(folder / "a.halotok");
}

TEST(Loader, MarksOfShardsCount) {
  const Folder folder;
  DataRecipe recipe = marked(folder, {0, 2, 0, 0, 1, 0});
  // The weight counts by the share of needle rows made here; without any it has nothing to act on.
  recipe.answer_weight = 0.25;
  const auto batch = make(recipe, 6, 1).step(0);
  EXPECT_THAT(values(batch.targets), ElementsAre(-1, 7, 8, 9, kEnd, -1));
  EXPECT_TRUE(batch.token_weights.eq(1).all().item<bool>());
}

TEST(Loader, AnswersAloneLeaveOutWhatTheyAreGivenTo) {
  const Folder folder;
  DataRecipe recipe = marked(folder, {3, 3, 3, 0, 0, 0});
  const std::string before = data_hash(recipe);
  EXPECT_THAT(values(make(recipe, 6, 1).step(0).targets), ElementsAre(6, 7, 8, 9, kEnd, -1));
  recipe.answers_alone = true;
  EXPECT_NE(data_hash(recipe), before);
  const auto batch = make(recipe, 6, 1).step(0);
  EXPECT_THAT(values(batch.targets), ElementsAre(-1, -1, 8, 9, kEnd, -1));
  const float* weights = batch.token_weights.data_ptr<float>();
  EXPECT_THAT(std::vector<float>(weights, weights + 6), ElementsAre(0, 0, 1, 1, 1, 1));
}

TEST(Loader, AnswersCountAsOftenAsTheRecipeSays) {
  // Sum of the extra weights over a long run = answer_weight x tokens, whatever the needles' share.
  const Folder folder;
  auto recipe = mixture(folder);
  for (const double share : {0.25, 0.5, 1.0}) {
    recipe.needle_share = share;
    const auto batch = make(recipe, 128, 64).step(0);
    EXPECT_NEAR((batch.token_weights - 1).sum().item<double>(), 0.5 * 64 * 128, 1) << share;
  }
}

TEST(Loader, NeedleRowsBeginWithTheBeginToken) {
  const Folder folder;
  auto recipe = mixture(folder);
  recipe.needle_share = 1;
  // A token of the haystack's text: then it stands nowhere inside.
  const int64_t begin = 20;
  const auto with = Loader(recipe, tokenizer(), kHash, {128, 6, 1, begin}).step(0);
  const auto ids = values(with.tokens), without = values(make(recipe, 128, 6).step(0).tokens);
  EXPECT_GT(std::ranges::count(without, begin), 0);
  for (int64_t row = 0; row < 6; ++row) {
    EXPECT_EQ(ids[row * 128], begin);
    EXPECT_EQ(std::count(&ids[row * 128], &ids[row * 128] + 128, begin), 1);
  }
}

TEST(Loader, AnswersOfFewerTokensWeighAsMuch) {
  const Folder folder;
  const Tokenizer triples(test::digit_triples_json(), "tokenizer.json");
  auto recipe = mixture(folder);
  recipe.needle_share = 1;
  const auto batch = Loader(recipe, triples, kHash, {128, 64, 1}).step(0);
  EXPECT_EQ((batch.token_weights > 1).sum().item<int64_t>(), 3 * 64);
  EXPECT_NEAR((batch.token_weights - 1).sum().item<double>(), 0.5 * 64 * 128, 1);
}

TEST(Loader, TellsHowMuchOfARowIsInView) {
  const Folder folder;
  write_shard(folder / "long.halotok", {100});
  write_shard(folder / "short.halotok", std::vector<int64_t>(20, 5));
  auto recipe = recipe_of(folder / "long.halotok");
  // One document of exactly two rows: every row is one piece.
  EXPECT_THAT(
      make(recipe, 50, 1).token_share_in_view({0.25, 0.5, 0.74}, 8),
      ElementsAre(testing::DoubleEq(0.76), testing::DoubleEq(0.5), testing::DoubleEq(0.26)));
  recipe.shards = {(folder / "short.halotok").string()};
  EXPECT_THAT(make(recipe, 10, 1).token_share_in_view({0.25, 0.5}, 8),
              ElementsAre(testing::DoubleEq(0.6), 0));
  recipe.packing = Packing::kConcat;
  EXPECT_THAT(make(recipe, 10, 1).token_share_in_view({0.5}, 8),
              ElementsAre(testing::DoubleEq(0.5)));
}

TEST(Loader, RefusesWhatDoesNotFit) {
  const Folder folder;
  write_shard(folder / "a.halotok", {30, 50});
  write_shard(folder / "other.halotok", {30, 50}, 0, "4567");
  EXPECT_THAT(error_of([&] { make(recipe_of(folder / "other.halotok"), 16); }),
              testing::AllOf(HasSubstr("other.halotok"), HasSubstr("4567"), HasSubstr(kHash)));
  EXPECT_THAT(error_of([&] { make(recipe_of(folder / "none*.halotok"), 16); }),
              HasSubstr("none*.halotok"));
  EXPECT_THAT(error_of([&] { make(DataRecipe{}, 16); }), HasSubstr("data.shards"));
  const auto refused = [&](auto change) {
    auto recipe = recipe_of(folder / "a.halotok");
    change(recipe);
    return error_of([&] { make(recipe, 16); });
  };
  EXPECT_THAT(refused([](auto& r) { r.weights = {1, 2}; }), HasSubstr("data.weights"));
  EXPECT_THAT(refused([](auto& r) { r.needle_share = 0.5; }), HasSubstr("needle document"));
}

// In the words of the first version, or its runs could not be resumed.
TEST(DataHash, IsThatOfTheFirstVersion) {
  const Folder folder;
  const auto path = folder / "a.halotok";
  write_shard(path, {30, 50});
  DataRecipe recipe = recipe_of(path);
  recipe.weights = {2};
  recipe.packing = Packing::kConcat;
  recipe.long_context = LongContext::kConcat;
  const std::string text = fmt::format(
      "shards = []\nweights = [2.0]\nneedle_share = 0.0\nhaystack = []\npacking = \"paper\"\n"
      "long_context = \"\"\ndocument_end = \"\"\nanswer_weight = 0.0\n"
      "shards\n{} {} 70000 80 2 {{}}\n",
      std::filesystem::file_size(path), kHash);
  EXPECT_EQ(data_hash(recipe), hash_hex(std::as_bytes(std::span(text))));
}

TEST(Prefetcher, GivesBatchesInOrderAndPassesErrorsOn) {
  const Folder folder;
  write_shard(folder / "a.halotok", {30, 50});
  const auto loader = make(recipe_of(folder / "a.halotok"), 16, 2);
  Prefetcher prefetcher(
      [&](int64_t step) {
        if (step == 6) throw_error("step {} is not there", step);
        return loader.step(step);
      },
      3);
  for (int64_t step = 3; step < 6; ++step) {
    EXPECT_TRUE(equal(prefetcher.next(), loader.step(step)));
  }
  EXPECT_THAT(error_of([&] { prefetcher.next(); }), HasSubstr("step 6"));
}

}  // namespace
}  // namespace halo
