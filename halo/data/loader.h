// What training reads: batches cut from token shards, with needle documents made on the fly. A
// batch is a pure function of (recipe, seed, step, row), so any position can be had without reading
// what came before it.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "halo/base/settings.h"
#include "halo/data/needle.h"
#include "halo/formats/token_shard.h"
#include "halo/tokenizer/tokenizer.h"

namespace halo {

enum class Packing {
  kCut,     // pieces end at document borders
  kConcat,  // a row is one piece, whatever it is cut from
};
inline constexpr Word<Packing> kPackings[] = {{"cut", Packing::kCut},
                                              {"concat", Packing::kConcat, "paper"}};
enum class LongContext {
  kWhole,   // stage 3 asks for documents that fill its rows
  kConcat,  // it takes any, and packs them as Packing::kConcat
};
inline constexpr Word<LongContext> kLongContexts[] = {{"whole", LongContext::kWhole},
                                                      {"concat", LongContext::kConcat}};

struct DataRecipe {
  std::vector<std::string> shards;
  std::vector<double> weights;
  double needle_share = 0;
  std::vector<std::string> haystack;
  Packing packing = Packing::kCut;
  LongContext long_context = LongContext::kWhole;
  std::string document_end;
  double answer_weight = 0;
  bool answers_alone = false;

  void settings(Settings& s) {
    s("shards", shards,
      {.help = "token shards: files, folders or globs, each entry one part of the mixture"});
    s("weights", weights,
      {.help = "share of rows of each entry of `shards` (empty: all one stream)",
       .min = 1e-12,
       .max = 1e12});
    s("needle_share", needle_share,
      {.help = "share of rows that are needle documents, 0 to 1", .max = 1});
    s("haystack", haystack,
      {.help = "shards that needles are hidden in (empty: those of `shards`)"});
    s("packing", packing, kPackings,
      {.help = "pieces of a row end at document borders, or a row is one piece"});
    s("long_context", long_context, kLongContexts,
      {.help = "finetune asks for documents that fill its rows, or takes any as one piece"});
    s("document_end", document_end,
      {.help = "token that ends a document (empty: the text end token)"});
    s("answer_weight", answer_weight,
      {.help =
           "stages 2 and 3: weight of the mean loss of needles' answers, beside that of all tokens",
       .max = 1e6});
    s("answers_alone", answers_alone,
      {.help = "stages 2 and 3: of conversations (data synthesize --chat) only the answers count"});
  }
};

// N = rows x sequence length tokens, rows one after another.
struct TrainBatch {
  at::Tensor tokens;             // [N] int64
  std::vector<int64_t> offsets;  // pieces, [pieces + 1] from 0 to N; positions restart at each.
                                 // Every row starts a piece.
  at::Tensor targets;        // [N] int64: the next token of the piece; kIgnoreTarget at a piece's
                             // end and where the next token is a needle's own digit or,
                             // with answers_alone, what an answer is given to
  at::Tensor token_weights;  // [N] fp32: 1, or 1 + answer_weight where the target is a needle's
                             // answer; 0 where answers_alone leaves it out
  int64_t rows = 0;
};

// An Error that names the key if its lists do not go together.
void check_recipe(const DataRecipe& recipe);

// Paths of one entry of DataRecipe::shards in name order; an Error where it names no file.
std::vector<std::filesystem::path> expand_shards(const std::string& entry);

// What the batches of a recipe are cut from, as one hash: sizes and headers of its shards (not
// where they lie) and the settings that say how they are mixed.
std::string data_hash(const DataRecipe& recipe);

// Splits rows 0, 1, 2, ... among parts by weight. Row r's part, and how many rows before r went to
// it, take O(parts) time. After any number of rows each part has its share within one row for up to
// three parts and within two for more (a tree of two-way splits, each within half a row).
class RowSplit {
 public:
  explicit RowSplit(const std::vector<double>& weights);  // positive, any sum
  struct Place {
    int64_t part, row;  // the row's number within its part
  };
  Place place(int64_t row) const;

 private:
  struct Node {
    double weight = 0;
    int64_t part = -1;  // of a leaf
    int64_t left = -1, right = -1;
  };
  std::vector<Node> nodes_;  // the root last
};

struct LoaderPlan {
  int64_t sequence_length = 0;
  int64_t rows_per_step = 0;
  uint64_t seed = 0;
  std::optional<int64_t> document_begin =
      std::nullopt;  // the token that begins documents, if there is one
};

class TokenStream;

class Loader {
 public:
  // `tokenizer_hash` is hash_file(tokenizer.json); shards made with another are an Error. The
  // tokenizer must outlive this.
  Loader(const DataRecipe& recipe, const Tokenizer& tokenizer, const std::string& tokenizer_hash,
         const LoaderPlan& plan);
  ~Loader();
  Loader(Loader&&) noexcept;
  Loader& operator=(Loader&&) noexcept;

  // Rows first_row .. first_row + rows - 1 of the step (a rank's share, or a micro-batch of it).
  // Safe to call from several threads.
  TrainBatch step(int64_t step, int64_t first_row, int64_t rows) const;
  TrainBatch step(int64_t step) const { return this->step(step, 0, plan_.rows_per_step); }

  const LoaderPlan& plan() const { return plan_; }
  int64_t num_tokens() const;     // of all text shards
  int64_t num_documents() const;  // of all text shards

  // Of the first `rows` text rows, or of needles where there is nothing else: the share of tokens
  // that have more than fraction x sequence_length tokens of their own piece in view (themselves
  // included), for each fraction.
  std::vector<double> token_share_in_view(const std::vector<double>& fractions,
                                          int64_t rows = 1024) const;

 private:
  bool is_needle(const RowSplit::Place& place) const;
  // Where the row's pieces end, 1 .. sequence_length, the last always there.
  std::vector<int64_t> piece_ends(const RowSplit::Place& place) const;
  // tokens and marks: [sequence_length]
  void fill_needle_row(int64_t row, int64_t* tokens, uint8_t* marks) const;
  // What each of an answer's tokens weighs beside its 1: the mean loss of answers has the weight
  // data.answer_weight, however many tokens the digits are.
  float answer_weight(int64_t answer_tokens) const;

  DataRecipe recipe_;
  LoaderPlan plan_;
  std::vector<std::unique_ptr<TokenStream>> parts_;  // of the mixture, text only
  std::unique_ptr<TokenStream> haystack_;            // where there are needles
  std::optional<NeedleWriter> needles_;
  std::optional<RowSplit> split_;  // needles last, where there are any
};

// Computes the next batch on a thread of its own while the last one is being used. `produce` must
// be safe to call there, and what it refers to must outlive this; its exceptions come out of
// next().
class Prefetcher {
 public:
  Prefetcher(std::function<TrainBatch(int64_t)> produce, int64_t first);
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;
  TrainBatch next();  // produce(first), produce(first + 1), ...

 private:
  void start();
  std::function<TrainBatch(int64_t)> produce_;
  int64_t index_;
  std::future<TrainBatch> pending_;
};

}  // namespace halo
