// Runs one model over sequences that keep their state: keys and values in blocks, lightning states
// in slots. Whoever holds an Engine owns its sequences; tensors live on the device of the weights.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "halo/engine/block_allocator.h"
#include "halo/engine/engine_recipe.h"
#include "halo/engine/step_batch.h"
#include "halo/model/decoder.h"

namespace halo {

// What a decoder call is for, beside its batch.
struct DecoderCall {
  std::vector<std::span<const int64_t>> texts;  // [S] all tokens of each sequence so far, the
                                                // batch's included
  std::vector<int64_t> rows;                    // of the batch, those that are wanted; ascending
};

struct EngineOptions {
  Kernels kernels = Kernels::kFast;
  int64_t block_size = 256;         // tokens a K/V block
  int64_t max_batch_tokens = 8192;  // of one decoder call; more are fed in several
  // Blocks and slots that there are, taken at once; 0: as many as are asked for, and recorded steps
  // are dropped when a pool grows.
  int64_t max_blocks = 0, max_slots = 0;
  KvType kv_type = KvType::kComputed;
  // The decoder, in place of decode() (trunk.h): final hidden states of the rows that are wanted.
  // Recorded steps do without.
  std::function<at::Tensor(const DecoderWeights&, const Batch&, const DecoderCall&)> forward = {};
};

// What a block and a slot take in all layers together.
struct StateBytes {
  int64_t block = 0;  // 0: no attention layers, and no blocks are taken
  int64_t slot = 0;   // 0: no lightning layers
};
StateBytes state_bytes(const DecoderWeights& weights, int64_t block_size, KvType type);

class Engine {
 public:
  enum class Rows { kLast, kAll };

  explicit Engine(std::shared_ptr<const DecoderWeights> weights, const EngineOptions& options = {});
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  int64_t create();  // an empty sequence; ids are never used twice
  // Another with its first `length` tokens: shares full blocks, copies the last partial one and the
  // states. Fewer than it has only where can_cut().
  int64_t fork(int64_t sequence, int64_t length);
  int64_t fork(int64_t sequence) { return fork(sequence, length(sequence)); }
  // Whether a sequence's beginning is part of its state: without lightning layers.
  bool can_cut() const { return !has_states_; }
  void release(int64_t sequence);
  int64_t length(int64_t sequence) const;  // tokens fed so far
  // Free blocks that feeding it so many tokens takes. An Error there, and of create() and fork(),
  // says that a pool which may not grow is used up.
  int64_t blocks_for(int64_t sequence, int64_t tokens) const;
  // Takes them now, so that they lie together where there is room; and gives back what was not
  // needed, of a sequence that is fed no more.
  void reserve(int64_t sequence, int64_t tokens);
  void give_back_spare(int64_t sequence);

  // A sequence's state in a layer on the host, for files: keys and values [length, G, d], in int8
  // with scales [length, G], or recurrent [H, d, d], contiguous. empty_state() has the shapes and
  // types alone (device meta).
  LayerState state(int64_t sequence, size_t layer) const;
  LayerState empty_state(size_t layer, int64_t length) const;
  // A sequence of so many tokens whose state in every layer set_state() is to fill.
  int64_t create(int64_t length);
  void set_state(int64_t sequence, size_t layer, const LayerState& state);

  // Feeds tokens[i] to sequences[i] (distinct). Final hidden states, in the order given: those of
  // all tokens [N, D], or of the last token of each sequence [S, D] (no tokens[i] may be empty
  // then). If it throws, the sequences it was called with can only be released.
  at::Tensor extend(const std::vector<int64_t>& sequences,
                    const std::vector<std::vector<int64_t>>& tokens, Rows rows);
  // The same; hidden states of the last wanted[i] of tokens[i].
  at::Tensor extend(const std::vector<int64_t>& sequences,
                    const std::vector<std::vector<int64_t>>& tokens,
                    const std::vector<int64_t>& wanted);

  // What extend() does, some layers at a time: other sequences may be fed between, and the bits are
  // the same. Until it is done its own may only be released, or used as they were before it where
  // can_cut(), and then it goes no further.
  class Pass;
  // Of max_batch_tokens tokens at most.
  Pass begin(const std::vector<int64_t>& sequences, const std::vector<std::vector<int64_t>>& tokens,
             Rows rows);

  // Feeds tokens[i], none of them empty, to sequences[i]; logits [N, V] fp32 after the last
  // wanted[i] of them, or without `wanted` after the last of each, which the next call may
  // overwrite. Where all have the same number of tokens, up to step_tokens(), it is a recorded
  // step.
  at::Tensor advance(const std::vector<int64_t>& sequences,
                     const std::vector<std::vector<int64_t>>& tokens,
                     const std::vector<int64_t>& wanted);
  at::Tensor advance(const std::vector<int64_t>& sequences,
                     const std::vector<std::vector<int64_t>>& tokens);
  // 0 where no step is recorded: on a CPU, and for models that the GPU's kernels do not take.
  int64_t step_tokens() const { return step_tokens_; }

  // A moment of a sequence: its recurrent state there, and how long it was. To go back with
  // exchange() once more tokens have been fed, and on again. Takes a slot as long as it lives.
  class Moment {
   public:
    Moment(Engine& engine, int64_t sequence);
    Moment(Moment&& other) noexcept;
    Moment& operator=(Moment&& other) noexcept;
    ~Moment();
    // The sequence is where this was, and this where that was.
    void exchange();

   private:
    Engine* engine_;
    int64_t sequence_, length_, slot_;
  };

  // Logits [N, V] fp32 of hidden states [N, D].
  at::Tensor logits(const at::Tensor& hidden) const;

  // Of which there were logits, recorded steps included.
  int64_t num_predictions() const { return num_predictions_; }

  const DecoderWeights& weights() const { return *weights_; }
  const EngineOptions& options() const { return options_; }
  const BlockAllocator& blocks() const { return blocks_; }
  const BlockAllocator& slots() const { return slots_; }

 private:
  struct Sequence {
    int64_t length = 0;
    int64_t slot = 0;
    std::vector<int64_t> blocks;
    std::vector<int64_t> text;  // its tokens, where options_.forward is to know them
  };
  // What one decoder call takes of one sequence's new tokens.
  struct Piece {
    Sequence* sequence;
    const int64_t* tokens;
    int64_t count;
    int64_t wanted;  // of the last of them the hidden states are
  };
  using Pieces = std::vector<Piece>;

  Sequence& find(int64_t sequence);
  const Sequence& find(int64_t sequence) const;
  int64_t missing_blocks(const Sequence& sequence, int64_t tokens) const;
  void grow_slots(int64_t capacity);
  // Those of a call, which must be distinct and the model's.
  void check_call(const std::vector<int64_t>& sequences,
                  const std::vector<std::vector<int64_t>>& tokens) const;
  int64_t take_slot();
  void reserve(const Pieces& pieces);
  void grow_blocks(int64_t capacity);
  Batch make_batch_of(const Pieces& pieces);
  at::Tensor run(const Pieces& pieces);
  bool can_step(const std::vector<std::vector<int64_t>>& tokens) const;
  at::Tensor step(const std::vector<int64_t>& sequences,
                  const std::vector<std::vector<int64_t>>& tokens);

  std::shared_ptr<const DecoderWeights> weights_;
  EngineOptions options_;
  at::Device device_;
  std::vector<LayerState> state_;  // one a layer
  at::Tensor recurrent_;           // [layers, slots, H, d, d]: theirs, so that a copy is one call
  BlockAllocator blocks_, slots_;  // the same numbers in every layer
  std::unordered_map<int64_t, Sequence> sequences_;
  int64_t next_id_ = 0;
  const bool has_blocks_, has_states_;
  mutable int64_t num_predictions_ = 0;  // a count, no part of what the engine is
  const int64_t step_tokens_;
  GraphMemory step_memory_;
  std::map<std::pair<int64_t, int64_t>, StepBatch> steps_;  // by rows and tokens of each; gone when
                                                            // a pool moves
};

class Engine::Pass {
 public:
  int64_t layer() const { return layer_; }  // the next one
  bool done() const { return layer_ == std::ssize(engine_->weights_->layers); }
  // The next layer; all of them where options().forward is the decoder.
  void run();
  // Final hidden states, as of extend(), once it is done; the sequences are longer then.
  at::Tensor hidden();

 private:
  friend class Engine;
  Pass(Engine& engine, Pieces pieces);

  Engine* engine_;
  Pieces pieces_;
  Batch batch_;
  DecoderCall call_;
  ResidualStream stream_;
  at::Tensor forwarded_;  // by options().forward
  int64_t layer_ = 0;
};

// A sequence that is released with its owner.
class OwnedSequence {
 public:
  explicit OwnedSequence(Engine& engine) : OwnedSequence(engine, engine.create()) {}
  OwnedSequence(Engine& engine, int64_t id) : engine_(&engine), id_(id) {}
  OwnedSequence(OwnedSequence&& other) noexcept;
  OwnedSequence& operator=(OwnedSequence&& other) noexcept;
  ~OwnedSequence();

  OwnedSequence fork() const { return {*engine_, engine_->fork(id_)}; }
  int64_t id() const { return id_; }

 private:
  Engine* engine_;  // nullptr: moved from
  int64_t id_;
};

}  // namespace halo
