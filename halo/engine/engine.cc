// Sequences' state and the decoder calls that extend it. Pools are never given back before the
// engine is.
#include "halo/engine/engine.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <unordered_set>
#include <utility>

#include "ATen/ATen.h"
#include "halo/base/check.h"
#include "halo/engine/pool.h"
#include "halo/model/fp32_vectors.h"

namespace halo {
namespace {

// A pool like `shape`, of device meta, that starts with the old one's rows.
at::Tensor grown(const at::Tensor& old, const at::Tensor& shape, at::Device device) {
  at::Tensor pool = zero_pool(shape.sizes(), shape.options().device(device));
  if (old.defined()) pool.narrow(0, 0, old.size(0)).copy_(old);
  return pool;
}

// Of a pool of `name` that must have `needed`; `most`: 0 or all that there can be.
int64_t new_capacity(const char* name, int64_t capacity, int64_t needed, int64_t most) {
  if (most > 0) throw_error("all {} {} of sequences' memory are in use", most, name);
  return std::max(needed, capacity + capacity / 2);
}

// On a CPU activations in bf16 would only cost time.
std::shared_ptr<const DecoderWeights> as_run(std::shared_ptr<const DecoderWeights> weights) {
  const at::Tensor& like = weights->embedding.value;
  if (!like.is_cpu() || like.scalar_type() != at::kBFloat16) return weights;
  return std::make_shared<const DecoderWeights>(with_fp32_vectors(*weights));
}

// More are given to the kernels that read prompts.
constexpr size_t kMostStepRows = 512;

// What a layer has of every token, as a member of its state.
constexpr at::Tensor LayerState::*kOfTokens[] = {
    &LayerState::keys, &LayerState::values, &LayerState::key_scales, &LayerState::value_scales};
// The same of a pool by blocks and tokens: [blocks, block_size, ..].
at::Tensor by_tokens(const at::Tensor& pool) {
  return pool.dim() == 3 ? pool.transpose(1, 2) : pool;
}

// Of each sequence's tokens in a call, those whose hidden states are wanted: the last so many.
std::vector<int64_t> wanted_rows(const std::vector<std::vector<int64_t>>& tokens,
                                 Engine::Rows rows) {
  std::vector<int64_t> wanted;
  for (size_t s = 0; s < tokens.size(); ++s) {
    HALO_CHECK(!tokens[s].empty() || rows == Engine::Rows::kAll,
               "engine: no tokens for sequence {} of the call", s);
    wanted.push_back(rows == Engine::Rows::kAll ? std::ssize(tokens[s]) : 1);
  }
  return wanted;
}

// An attention layer's pools of so many blocks, of device meta.
KeyValueBlocks blocks_of(const AttentionWeights& w, int64_t blocks, int64_t block_size,
                         at::ScalarType type) {
  const at::TensorOptions meta(at::kMeta);
  KeyValueBlocks out;
  out.keys = at::empty({blocks, block_size, w.kv_heads, w.head_dim}, meta.dtype(type));
  out.values = at::empty_like(out.keys);
  if (type != at::kChar) return out;
  out.key_scales = at::empty({blocks, w.kv_heads, block_size}, meta.dtype(at::kFloat));
  out.value_scales = at::empty_like(out.key_scales);
  return out;
}

at::ScalarType scalar_type(const DecoderWeights& weights, KvType type) {
  return type == KvType::kInt8 ? at::kChar : weights.embedding.value.scalar_type();
}

}  // namespace

StateBytes state_bytes(const DecoderWeights& weights, int64_t block_size, KvType type) {
  StateBytes bytes;
  for (const LayerWeights& layer : weights.layers) {
    if (const auto* w = std::get_if<AttentionWeights>(&layer.mixer)) {
      LayerState one{blocks_of(*w, 1, block_size, scalar_type(weights, type)), {}};
      for (const auto member : kOfTokens) {
        if ((one.*member).defined()) bytes.block += static_cast<int64_t>((one.*member).nbytes());
      }
    } else {
      const auto& l = std::get<LightningWeights>(layer.mixer);
      bytes.slot += l.heads * l.head_dim * l.head_dim * static_cast<int64_t>(sizeof(float));
    }
  }
  return bytes;
}

Engine::Engine(std::shared_ptr<const DecoderWeights> weights, const EngineOptions& options)
    : weights_(as_run(std::move(weights))),
      options_(options),
      device_(weights_->embedding.value.device()),
      state_(weights_->layers.size()),
      has_blocks_(state_bytes(*weights_, 1, options.kv_type).block > 0),
      has_states_(state_bytes(*weights_, 1, options.kv_type).slot > 0),
      step_tokens_(
          options.kernels == Kernels::kFast &&
                  can_record_step(*weights_, options.block_size, options.kv_type == KvType::kInt8)
              ? kMostStepTokens
              : 0) {
  HALO_CHECK(options_.block_size > 0 && options_.max_batch_tokens > 0,
             "engine: block size {} and tokens a batch {} must be positive", options_.block_size,
             options_.max_batch_tokens);
  at::NoGradGuard no_grad;
  if (options_.max_blocks > 0) grow_blocks(options_.max_blocks);
  if (options_.max_slots > 0) grow_slots(options_.max_slots);
}

const Engine::Sequence& Engine::find(int64_t sequence) const {
  const auto it = sequences_.find(sequence);
  HALO_CHECK(it != sequences_.end(), "engine: no sequence {}", sequence);
  return it->second;
}

Engine::Sequence& Engine::find(int64_t sequence) {
  return const_cast<Sequence&>(std::as_const(*this).find(sequence));
}

int64_t Engine::length(int64_t sequence) const {
  return find(sequence).length;
}

int64_t Engine::missing_blocks(const Sequence& sequence, int64_t tokens) const {
  if (!has_blocks_) return 0;
  // It may have more than its length, of tokens that it went back from.
  return std::max<int64_t>(
      0, num_blocks(sequence.length + tokens, options_.block_size) - std::ssize(sequence.blocks));
}

int64_t Engine::blocks_for(int64_t sequence, int64_t tokens) const {
  return missing_blocks(find(sequence), tokens);
}

void Engine::grow_slots(int64_t capacity) {
  std::vector<at::Tensor*> recurrent;
  const LightningWeights* like = nullptr;
  for (size_t i = 0; i < state_.size(); ++i) {
    const auto* mixer = std::get_if<LightningWeights>(&weights_->layers[i].mixer);
    if (!mixer) continue;
    HALO_CHECK(!like || (like->heads == mixer->heads && like->head_dim == mixer->head_dim),
               "engine: layer {} has {} lightning heads of {}, the layers before it {} of {}", i,
               mixer->heads, mixer->head_dim, like ? like->heads : 0, like ? like->head_dim : 0);
    like = mixer;
    recurrent.push_back(&state_[i].recurrent);
  }
  if (like) {
    const auto layers = std::ssize(recurrent), size = like->head_dim;
    const at::Tensor pool = zero_pool({layers, capacity, like->heads, size, size},
                                      at::TensorOptions().device(device_).dtype(at::kFloat));
    if (recurrent_.defined()) pool.narrow(1, 0, recurrent_.size(1)).copy_(recurrent_);
    recurrent_ = pool;
    for (int64_t i = 0; i < layers; ++i) *recurrent[i] = pool[i];
  }
  slots_.grow(capacity);
  steps_.clear();
}

int64_t Engine::take_slot() {
  const int64_t capacity = slots_.capacity();
  if (slots_.num_free() == 0) {
    grow_slots(new_capacity("slots", capacity, capacity + 1, options_.max_slots));
  }
  return slots_.take();
}

int64_t Engine::create() {
  at::NoGradGuard no_grad;
  const int64_t slot = take_slot();
  if (has_states_) recurrent_.select(1, slot).zero_();
  sequences_[next_id_].slot = slot;
  return next_id_++;
}

int64_t Engine::fork(int64_t sequence, int64_t length) {
  at::NoGradGuard no_grad;
  Sequence copy = find(sequence);
  HALO_CHECK(0 <= length && length <= copy.length && (length == copy.length || can_cut()),
             "engine: {} tokens of a sequence of {} cannot be had", length, copy.length);
  copy.length = length;
  if (has_blocks_) copy.blocks.resize(num_blocks(length, options_.block_size));
  if (options_.forward) copy.text.resize(static_cast<size_t>(length));
  const bool partial = has_blocks_ && copy.length % options_.block_size != 0;
  const int64_t capacity = blocks_.capacity();
  if (partial && blocks_.num_free() == 0) {
    grow_blocks(new_capacity("blocks", capacity, capacity + 1, options_.max_blocks));
  }
  const int64_t from_slot = std::exchange(copy.slot, take_slot());
  const int64_t from_block = partial ? std::exchange(copy.blocks.back(), blocks_.take()) : 0;
  for (size_t b = 0; b + partial < copy.blocks.size(); ++b) blocks_.share(copy.blocks[b]);
  if (has_states_) recurrent_.select(1, copy.slot).copy_(recurrent_.select(1, from_slot));
  for (LayerState& layer : state_) {
    for (const auto member : kOfTokens) {
      const at::Tensor& pool = layer.*member;
      if (!partial || !pool.defined()) continue;
      pool.select(0, copy.blocks.back()).copy_(pool.select(0, from_block));
    }
  }
  sequences_[next_id_] = std::move(copy);
  return next_id_++;
}

int64_t Engine::create(int64_t length) {
  HALO_CHECK(!options_.forward, "engine: nobody knows the {} tokens of this sequence", length);
  const int64_t id = create();
  Sequence& sequence = find(id);
  try {
    reserve({{&sequence, nullptr, length, 0}});
  } catch (...) {
    release(id);
    throw;
  }
  sequence.length = length;
  return id;
}

LayerState Engine::empty_state(size_t layer, int64_t length) const {
  if (const auto* w = std::get_if<AttentionWeights>(&weights_->layers[layer].mixer)) {
    // Blocks of one token have what each token has.
    LayerState out{blocks_of(*w, length, 1, scalar_type(*weights_, options_.kv_type)), {}};
    for (const auto member : kOfTokens) {
      at::Tensor& tokens = out.*member;
      if (tokens.defined())
        tokens = at::empty(by_tokens(tokens).flatten(0, 1).sizes(), tokens.options());
    }
    return out;
  }
  const auto& l = std::get<LightningWeights>(weights_->layers[layer].mixer);
  LayerState out;
  out.recurrent =
      at::empty({l.heads, l.head_dim, l.head_dim}, at::TensorOptions(at::kMeta).dtype(at::kFloat));
  return out;
}

LayerState Engine::state(int64_t sequence, size_t layer) const {
  at::NoGradGuard no_grad;
  const Sequence& from = find(sequence);
  const LayerState& all = state_[layer];
  LayerState out;
  if (all.recurrent.defined())
    out.recurrent = all.recurrent.select(0, from.slot).cpu().contiguous();
  if (!all.keys.defined()) return out;
  const at::Tensor blocks = at::tensor(from.blocks, at::kLong).to(device_);
  for (const auto member : kOfTokens) {
    if (!(all.*member).defined()) continue;
    out.*member = by_tokens((all.*member).index_select(0, blocks))
                      .flatten(0, 1)
                      .narrow(0, 0, from.length)
                      .cpu()
                      .contiguous();
  }
  return out;
}

void Engine::set_state(int64_t sequence, size_t layer, const LayerState& state) {
  at::NoGradGuard no_grad;
  const Sequence& to = find(sequence);
  LayerState& all = state_[layer];
  if (all.recurrent.defined()) all.recurrent.select(0, to.slot).copy_(state.recurrent);
  if (!all.keys.defined()) return;
  const int64_t size = options_.block_size, full = to.length / size, rest = to.length % size;
  const at::Tensor blocks = at::tensor(to.blocks, at::kLong).narrow(0, 0, full).to(device_);
  const auto fill = [&](const at::Tensor& pool, const at::Tensor& tokens) {
    pool.index_copy_(0, blocks,
                     tokens.narrow(0, 0, full * size).unflatten(0, {full, size}).to(device_));
    if (rest == 0) return;
    pool.select(0, to.blocks.back()).narrow(0, 0, rest).copy_(tokens.narrow(0, full * size, rest));
  };
  for (const auto member : kOfTokens) {
    if ((all.*member).defined()) fill(by_tokens(all.*member), state.*member);
  }
}

void Engine::release(int64_t sequence) {
  const Sequence& released = find(sequence);
  for (int64_t block : released.blocks) blocks_.drop(block);
  slots_.drop(released.slot);
  sequences_.erase(sequence);
}

void Engine::grow_blocks(int64_t capacity) {
  for (size_t i = 0; i < state_.size(); ++i) {
    const auto* mixer = std::get_if<AttentionWeights>(&weights_->layers[i].mixer);
    if (!mixer) continue;
    const LayerState shapes{
        blocks_of(*mixer, capacity, options_.block_size, scalar_type(*weights_, options_.kv_type)),
        {}};
    for (const auto member : kOfTokens) {
      if (!(shapes.*member).defined()) continue;
      state_[i].*member = grown(state_[i].*member, shapes.*member, device_);
    }
  }
  blocks_.grow(capacity);
  steps_.clear();
}

void Engine::reserve(int64_t sequence, int64_t tokens) {
  reserve({{&find(sequence), nullptr, tokens, 0}});
}

void Engine::give_back_spare(int64_t sequence) {
  Sequence& from = find(sequence);
  if (!has_blocks_) return;
  const auto used = static_cast<size_t>(num_blocks(from.length, options_.block_size));
  for (; from.blocks.size() > used; from.blocks.pop_back()) blocks_.drop(from.blocks.back());
}

void Engine::reserve(const Pieces& pieces) {
  const auto missing = [&](const Piece& piece) {
    return missing_blocks(*piece.sequence, piece.count);
  };
  int64_t needed = 0;
  for (const Piece& piece : pieces) needed += missing(piece);
  if (needed > blocks_.num_free()) {
    grow_blocks(new_capacity("blocks", blocks_.capacity(), blocks_.num_used() + needed,
                             options_.max_blocks));
  }
  for (const Piece& piece : pieces) {
    blocks_.take(missing(piece), piece.sequence->blocks);
  }
}

Batch Engine::make_batch_of(const Pieces& pieces) {
  const int64_t count = static_cast<int64_t>(pieces.size());
  std::vector<int64_t> offsets = {0}, lengths;
  int64_t max_blocks = 0;
  for (const Piece& piece : pieces) {
    offsets.push_back(offsets.back() + piece.count);
    lengths.push_back(piece.sequence->length + piece.count);
    max_blocks = std::max<int64_t>(max_blocks, piece.sequence->blocks.size());
  }
  // Tokens, positions and slots travel to the device in one copy.
  const int64_t total = offsets.back();
  at::Tensor inputs = at::empty({2 * total + count}, at::kLong);
  at::Tensor table = at::zeros({count, max_blocks}, at::kLong);
  int64_t* tokens = inputs.data_ptr<int64_t>();
  int64_t* positions = tokens + total;
  int64_t* slots = positions + total;
  int64_t* row = table.data_ptr<int64_t>();
  for (int64_t s = 0; s < count; ++s, row += max_blocks) {
    const Piece& piece = pieces[s];
    std::copy_n(piece.tokens, piece.count, tokens + offsets[s]);
    std::iota(positions + offsets[s], positions + offsets[s + 1], piece.sequence->length);
    slots[s] = piece.sequence->slot;
    std::copy(piece.sequence->blocks.begin(), piece.sequence->blocks.end(), row);
  }
  inputs = to_device(inputs, device_);
  Batch batch = make_batch(inputs.narrow(0, 0, total), std::move(offsets),
                           inputs.narrow(0, total, total), device_);
  batch.kernels = options_.kernels;
  batch.state = &state_;
  batch.block_table = std::move(table);
  batch.lengths = std::move(lengths);
  batch.slots = inputs.narrow(0, 2 * total, count);
  return batch;
}

Engine::Pass::Pass(Engine& engine, Pieces pieces) : engine_(&engine), pieces_(std::move(pieces)) {
  engine.reserve(pieces_);
  batch_ = engine.make_batch_of(pieces_);
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const int64_t end = batch_.sequences.offsets()[i + 1];
    for (int64_t row = end - pieces_[i].wanted; row < end; ++row) call_.rows.push_back(row);
  }
  if (!engine.options_.forward) {
    stream_.hidden = embed(*engine.weights_, batch_);
    return;
  }
  for (const Piece& piece : pieces_) {
    std::vector<int64_t>& text = piece.sequence->text;
    text.insert(text.end(), piece.tokens, piece.tokens + piece.count);
    call_.texts.emplace_back(text);
  }
}

void Engine::Pass::run() {
  const at::NoGradGuard no_grad;
  const DecoderWeights& weights = *engine_->weights_;
  if (engine_->options_.forward) {
    forwarded_ = engine_->options_.forward(weights, batch_, call_);
    layer_ = std::ssize(weights.layers);
    return;
  }
  stream_ = decode_layers(weights, layer_, layer_ + 1, std::move(stream_), batch_);
  ++layer_;
}

at::Tensor Engine::Pass::hidden() {
  HALO_CHECK(done(), "engine: layer {} of a pass is still to be run", layer_);
  const at::NoGradGuard no_grad;
  for (const Piece& piece : pieces_) piece.sequence->length += piece.count;
  if (engine_->options_.forward) return forwarded_;
  const at::Tensor all = final_norm(*engine_->weights_, stream_);
  if (std::ssize(call_.rows) == all.size(0)) return all;
  return all.index_select(0, to_device(at::tensor(call_.rows, at::kLong), engine_->device_));
}

at::Tensor Engine::run(const Pieces& pieces) {
  Pass pass(*this, pieces);
  while (!pass.done()) pass.run();
  return pass.hidden();
}

Engine::Pass Engine::begin(const std::vector<int64_t>& sequences,
                           const std::vector<std::vector<int64_t>>& tokens, Rows rows) {
  const at::NoGradGuard no_grad;
  check_call(sequences, tokens);
  const std::vector<int64_t> wanted = wanted_rows(tokens, rows);
  Pieces pieces;
  int64_t total = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    pieces.push_back({&find(sequences[s]), tokens[s].data(), std::ssize(tokens[s]), wanted[s]});
    total += std::ssize(tokens[s]);
  }
  HALO_CHECK(total <= options_.max_batch_tokens, "engine: {} tokens in a pass, at most {} may be",
             total, options_.max_batch_tokens);
  return {*this, std::move(pieces)};
}

void Engine::check_call(const std::vector<int64_t>& sequences,
                        const std::vector<std::vector<int64_t>>& tokens) const {
  HALO_CHECK(sequences.size() == tokens.size(), "engine: {} sequences, {} lists of tokens",
             sequences.size(), tokens.size());
  HALO_CHECK(
      std::unordered_set<int64_t>(sequences.begin(), sequences.end()).size() == sequences.size(),
      "engine: a sequence is given twice in one call");
  const int64_t vocabulary = weights_->embedding.value.size(0);
  for (const auto& list : tokens) {
    for (int64_t token : list) {
      HALO_CHECK(0 <= token && token < vocabulary,
                 "engine: token {} is outside the vocabulary of {}", token, vocabulary);
    }
  }
}

at::Tensor Engine::extend(const std::vector<int64_t>& sequences,
                          const std::vector<std::vector<int64_t>>& tokens, Rows rows) {
  return extend(sequences, tokens, wanted_rows(tokens, rows));
}

at::Tensor Engine::extend(const std::vector<int64_t>& sequences,
                          const std::vector<std::vector<int64_t>>& tokens,
                          const std::vector<int64_t>& wanted) {
  at::NoGradGuard no_grad;
  check_call(sequences, tokens);
  HALO_CHECK(wanted.size() == tokens.size(), "engine: {} sequences, {} numbers of rows",
             tokens.size(), wanted.size());
  std::vector<at::Tensor> outputs;
  Pieces pieces;
  int64_t room = options_.max_batch_tokens;
  const auto flush = [&] {
    outputs.push_back(run(pieces));
    pieces.clear();
    room = options_.max_batch_tokens;
  };
  for (size_t s = 0; s < sequences.size(); ++s) {
    Sequence& sequence = find(sequences[s]);
    const int64_t size = std::ssize(tokens[s]);
    HALO_CHECK(0 <= wanted[s] && wanted[s] <= size, "engine: {} rows of {} tokens", wanted[s],
               size);
    for (int64_t begin = 0, count = 0; begin < size; begin += count) {
      count = std::min(size - begin, room);
      const int64_t end = begin + count;
      pieces.push_back({&sequence, tokens[s].data() + begin, count,
                        end - std::clamp(size - wanted[s], begin, end)});
      room -= count;
      if (room == 0) flush();
    }
  }
  if (!pieces.empty()) flush();
  if (outputs.size() == 1) return outputs[0];
  if (!outputs.empty()) return at::cat(outputs);
  return at::empty({0, weights_->embedding.value.size(1)},
                   weights_->embedding.value.options().requires_grad(false));
}

at::Tensor Engine::step(const std::vector<int64_t>& sequences,
                        const std::vector<std::vector<int64_t>>& tokens) {
  check_call(sequences, tokens);
  Pieces pieces;
  const auto count = std::ssize(tokens.front());
  for (size_t s = 0; s < sequences.size(); ++s)
    pieces.push_back({&find(sequences[s]), tokens[s].data(), count, count});
  reserve(pieces);
  std::vector<StepRow> rows;
  for (size_t s = 0; s < sequences.size(); ++s) {
    Sequence& sequence = *pieces[s].sequence;
    if (options_.forward) {
      sequence.text.insert(sequence.text.end(), tokens[s].begin(), tokens[s].end());
    }
    rows.push_back({sequences[s], tokens[s], sequence.length, sequence.slot, &sequence.blocks});
    sequence.length += count;
  }
  const auto capacity = static_cast<int64_t>(std::bit_ceil(rows.size()));
  return steps_
      .try_emplace({capacity, count}, *weights_, state_, capacity, count, blocks_.capacity(),
                   step_memory_)
      .first->second.run(rows);
}

at::Tensor Engine::advance(const std::vector<int64_t>& sequences,
                           const std::vector<std::vector<int64_t>>& tokens) {
  return advance(sequences, tokens, std::vector<int64_t>(sequences.size(), 1));
}

at::Tensor Engine::advance(const std::vector<int64_t>& sequences,
                           const std::vector<std::vector<int64_t>>& tokens,
                           const std::vector<int64_t>& wanted) {
  if (!can_step(tokens)) return logits(extend(sequences, tokens, wanted));
  const at::Tensor all = step(sequences, tokens);
  const auto count = std::ssize(tokens.front());
  num_predictions_ += std::accumulate(wanted.begin(), wanted.end(), int64_t{0});
  if (std::ranges::count(wanted, count) == std::ssize(wanted)) return all;
  std::vector<at::Tensor> rows;
  int64_t end = 0;
  for (const int64_t height : wanted)
    rows.push_back(all.narrow(0, (end += count) - height, height));
  return rows.size() == 1 ? rows[0] : at::cat(rows);
}

bool Engine::can_step(const std::vector<std::vector<int64_t>>& tokens) const {
  if (step_tokens_ == 0 || tokens.empty() || tokens.size() > kMostStepRows) return false;
  const size_t count = tokens.front().size();
  return 0 < count && std::cmp_less_equal(count, step_tokens_) &&
         std::ranges::all_of(tokens, [&](const auto& list) { return list.size() == count; });
}

at::Tensor Engine::logits(const at::Tensor& hidden) const {
  at::NoGradGuard no_grad;
  num_predictions_ += hidden.size(0);
  return halo::logits(*weights_, hidden, options_.kernels);
}

Engine::Moment::Moment(Engine& engine, int64_t sequence)
    : engine_(&engine), sequence_(sequence), length_(engine.length(sequence)) {
  HALO_CHECK(!engine.options_.forward, "engine: nobody knows the tokens of this moment");
  const at::NoGradGuard no_grad;
  slot_ = engine.take_slot();
  if (!engine.has_states_) return;
  const at::Tensor& all = engine.recurrent_;
  all.select(1, slot_).copy_(all.select(1, engine.find(sequence).slot));
}

Engine::Moment::Moment(Moment&& other) noexcept
    : engine_(std::exchange(other.engine_, nullptr)),
      sequence_(other.sequence_),
      length_(other.length_),
      slot_(other.slot_) {}

Engine::Moment& Engine::Moment::operator=(Moment&& other) noexcept {
  std::swap(engine_, other.engine_);
  std::swap(sequence_, other.sequence_);
  std::swap(length_, other.length_);
  std::swap(slot_, other.slot_);
  return *this;
}

Engine::Moment::~Moment() {
  if (engine_) engine_->slots_.drop(slot_);
}

void Engine::Moment::exchange() {
  Sequence& sequence = engine_->find(sequence_);
  std::swap(sequence.slot, slot_);
  std::swap(sequence.length, length_);
}

OwnedSequence::OwnedSequence(OwnedSequence&& other) noexcept
    : engine_(std::exchange(other.engine_, nullptr)), id_(other.id_) {}

OwnedSequence& OwnedSequence::operator=(OwnedSequence&& other) noexcept {
  std::swap(engine_, other.engine_);
  std::swap(id_, other.id_);
  return *this;
}

OwnedSequence::~OwnedSequence() {
  if (engine_) engine_->release(id_);
}

}  // namespace halo
