// Lightning attention as matrix products over chunks of C tokens of one sequence (README.md). Rows
// are laid out sequence by sequence, each filled up with zero rows to whole chunks; blocks of
// chunks are worked through with a carried state, which bounds memory. Sizes come from the host's
// offsets, everything else is computed on the device. Decays are exp of sums of log-decays of
// consecutive tokens, which are kept in fp64: -slope * n, or cumulative sums of those given.
// Shapes: H heads, c chunks of a block, C tokens a chunk.

#include <algorithm>
#include <utility>

#include "ATen/ATen.h"
#include "halo/kernels/lightning/lightning_forms.h"

namespace halo {
namespace {

constexpr int64_t kChunkTokens = 64;
constexpr int64_t kBlockChunks = 128;

struct Block {
  int64_t first_chunk, end_chunk;
  int64_t first_token, end_token;
  int64_t first_starting, end_starting;  // sequences whose first chunk is in this block
  int64_t first_ending, end_ending;      // ... whose last chunk is
  int64_t chunks() const { return end_chunk - first_chunk; }
  int64_t tokens() const { return end_token - first_token; }
};

struct Plan {
  int64_t chunk_tokens = 0;  // C
  std::vector<Block> blocks;
  at::Tensor row;          // [N] token -> padded row
  at::Tensor sequence;     // [chunks] whose tokens they are
  at::Tensor length;       // [chunks] tokens, C except at a sequence's end
  at::Tensor first, last;  // [S] chunks of a sequence; meaningless for an empty one
  at::Tensor empty;        // [S, 1, 1, 1] bool
  // Log-decays, fp64: over the chunk's tokens up to and with each ([H, 1, C] where all chunks have
  // the same), over the whole chunk, and over the sequence's tokens before and after the chunk.
  at::Tensor upto;                  // [H, chunks, C]
  at::Tensor whole, before, after;  // [H, chunks]
};

// exp of log-decays, fp32. Those above 0 are of places that a mask takes out.
at::Tensor decays(const at::Tensor& log) {
  return log.clamp_max(0).exp_().to(at::kFloat);
}

std::vector<Block> make_blocks(const Sequences& sequences, int64_t chunk_tokens) {
  std::vector<Block> blocks;
  int64_t chunk = 0;
  for (int64_t s = 0; s < sequences.count(); ++s) {
    for (int64_t t = sequences.offsets()[s]; t < sequences.offsets()[s + 1]; t += chunk_tokens) {
      const bool starts = t == sequences.offsets()[s];
      if (chunk % kBlockChunks == 0) {
        const int64_t starting = starts ? s : s + 1;
        blocks.push_back({chunk, chunk, t, t, starting, starting, s, s});
      }
      Block& block = blocks.back();
      block.end_chunk = ++chunk;
      if (starts) block.end_starting = s + 1;
      block.end_token = std::min(t + chunk_tokens, sequences.offsets()[s + 1]);
      if (block.end_token == sequences.offsets()[s + 1]) block.end_ending = s + 1;
    }
  }
  return blocks;
}

// Of chunks with `before` and `after` tokens of their sequence around them.
void add_fixed_decays(Plan& plan, const at::Tensor& slopes, const at::Tensor& before,
                      const at::Tensor& after) {
  const auto place = at::arange(1, plan.chunk_tokens + 1, before.options());
  plan.upto = slopes.view({-1, 1, 1}) * -place;
  plan.whole = slopes.unsqueeze(1) * -plan.length;
  plan.before = slopes.unsqueeze(1) * -before;
  plan.after = slopes.unsqueeze(1) * -after;
}

// The sums of x [..., n] up to and with each: as products, for LibTorch's own sums have no fixed
// order on a GPU.
at::Tensor running_sums(const at::Tensor& x) {
  const int64_t n = x.size(-1), size = std::min(n, kChunkTokens), rows = (n + size - 1) / size;
  const auto triangle = at::ones({size, size}, x.options()).triu_();
  if (rows == 1) return at::matmul(x, triangle);
  const auto padded = at::constant_pad_nd(x, {0, rows * size - n}).unflatten(-1, {rows, size});
  const auto within = at::matmul(padded, triangle), whole = within.select(-1, -1);
  const auto before = running_sums(whole) - whole;
  return (within + before.unsqueeze(-1)).flatten(-2).narrow(-1, 0, n);
}

// log_decay [N, H].
void add_given_decays(Plan& plan, const at::Tensor& log_decay) {
  const int64_t heads = log_decay.size(1), chunks = plan.length.size(0);
  const auto padded = at::zeros({heads, chunks * plan.chunk_tokens}, log_decay.options())
                          .index_copy_(1, plan.row, log_decay.t());
  plan.upto = running_sums(padded.view({heads, chunks, plan.chunk_tokens}));
  plan.whole = plan.upto.select(2, -1);
  const auto through = running_sums(plan.whole), until = through - plan.whole;
  const auto of_sequence = [&](const at::Tensor& sums, const at::Tensor& chunk) {
    return sums.index_select(1, chunk.index_select(0, plan.sequence));
  };
  plan.before = until - of_sequence(until, plan.first);
  plan.after = of_sequence(through, plan.last) - through;
}

Plan make_plan(const LightningArgs& args, const Sequences& sequences) {
  Plan plan;
  const int64_t size = plan.chunk_tokens = std::min(kChunkTokens, sequences.max_length());
  plan.blocks = make_blocks(sequences, size);
  const auto ints = args.q.options().dtype(at::kLong);

  const auto offsets = sequences.offsets_i32().to(at::kLong);
  const auto starts = offsets.slice(0, 0, -1), ends = offsets.slice(0, 1);
  const auto end_chunk = (ends - starts + (size - 1)).floor_divide(size).cumsum(0);
  plan.empty = (starts == ends).view({-1, 1, 1, 1});
  plan.last = end_chunk - 1;
  plan.first = end_chunk - (ends - starts + (size - 1)).floor_divide(size);
  const auto token = at::arange(sequences.num_tokens(), ints);
  plan.row = token + (plan.first * size - starts)
                         .index_select(0, at::searchsorted(ends, token, false, /*right=*/true));

  const auto chunk = at::arange(plan.blocks.back().end_chunk, ints);
  plan.sequence = at::searchsorted(end_chunk, chunk, false, /*right=*/true);
  const auto before = (chunk - plan.first.index_select(0, plan.sequence)) * size;
  const auto rest = (ends - starts).index_select(0, plan.sequence) - before;
  plan.length = rest.clamp_max(size);
  if (args.log_decay.defined()) {
    add_given_decays(plan, args.log_decay);
  } else {
    const auto slopes =
        at::tensor(args.slopes, at::kDouble).to(args.q.device(), /*non_blocking=*/true);
    add_fixed_decays(plan, slopes, before, rest - plan.length);
  }
  return plan;
}

// The decays of one block.
struct BlockDecays {
  at::Tensor mask;   // [H, c or 1, C, C] scale * decay from j to i for j <= i, else 0
  at::Tensor entry;  // [H, c or 1, C, 1] scale * decay through i: what token i sees of the state
  at::Tensor exit;   // [H, c, C, 1] what token j leaves in the leaving state; pads 0
  at::Tensor whole;  // [H, c, 1, 1] what is left of the entering state
  at::Tensor scan;  // [H, c, c] entering state of row, from what column's tokens left; strict lower
};

// The block's part of log-decays [H, chunks, ...].
at::Tensor part_of(const at::Tensor& log, const Block& block) {
  return log.slice(1, block.first_chunk, block.end_chunk);
}

BlockDecays block_decays(const Plan& plan, const Block& block, double scale) {
  const auto place = at::arange(plan.chunk_tokens, plan.length.options());
  const auto length = plan.length.slice(0, block.first_chunk, block.end_chunk);
  const auto upto = plan.upto.size(1) == 1 ? plan.upto : part_of(plan.upto, block);
  const auto whole = part_of(plan.whole, block), before = part_of(plan.before, block);
  BlockDecays out;
  out.mask = decays(upto.unsqueeze(-1) - upto.unsqueeze(-2)).tril_().mul_(scale);
  out.entry = decays(upto).mul_(scale).unsqueeze(-1);
  out.exit = (decays(whole.unsqueeze(-1) - upto) * (place < length.unsqueeze(1))).unsqueeze(-1);
  out.whole = decays(whole).unsqueeze(-1).unsqueeze(-1);
  const auto chunk = at::arange(block.chunks(), length.options());
  const auto sequence = plan.sequence.slice(0, block.first_chunk, block.end_chunk);
  out.scan = decays(before.unsqueeze(-1) - (before + whole).unsqueeze(-2)) *
             ((chunk.unsqueeze(1) > chunk) & (sequence.unsqueeze(1) == sequence));
  return out;
}

// Does the sequence of chunk `chunk` own the block's chunks? [c] bool.
at::Tensor same_sequence(const Plan& plan, const Block& block, int64_t chunk) {
  return plan.sequence.slice(0, block.first_chunk, block.end_chunk) ==
         plan.sequence.slice(0, chunk, chunk + 1);
}

// x [N, G, d] -> the block's rows [H, c, C, d] fp32, padded with zeros.
at::Tensor pack(const at::Tensor& x, int64_t heads, const Plan& plan, const Block& block) {
  const int64_t rows = block.chunks() * plan.chunk_tokens, groups = x.size(1), d = x.size(2);
  auto part = x.slice(0, block.first_token, block.end_token).transpose(0, 1);
  if (rows != block.tokens()) {
    const auto row = plan.row.slice(0, block.first_token, block.end_token) -
                     block.first_chunk * plan.chunk_tokens;
    part = at::zeros({groups, rows, d}, x.options()).index_copy_(1, row, part);
  }
  return part.to(at::kFloat)
      .unsqueeze(1)
      .expand({groups, heads / groups, rows, d})
      .contiguous()
      .view({heads, block.chunks(), plan.chunk_tokens, d});
}

// The inverse: the block's rows of y [H, c, C, d] into out [N, G, d], summed over each group.
void unpack(const at::Tensor& y, const Plan& plan, const Block& block, const at::Tensor& out) {
  const int64_t heads = y.size(0), groups = out.size(1), d = out.size(2);
  auto part = y.view({heads, -1, d});
  if (heads != groups) part = part.view({groups, heads / groups, -1, d}).sum(1);
  if (part.size(1) != block.tokens()) {
    part = part.index_select(1, plan.row.slice(0, block.first_token, block.end_token) -
                                    block.first_chunk * plan.chunk_tokens);
  }
  out.slice(0, block.first_token, block.end_token).copy_(part.transpose(0, 1));
}

// sum += a b, all [H, c, ., .]; sum contiguous.
void add_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  sum.flatten(0, 1).baddbmm_(a.flatten(0, 1), b.flatten(0, 1));
}

// What the chunks' own tokens leave behind, [H, c, dk, dv].
at::Tensor own_states(const at::Tensor& k, const at::Tensor& v, const BlockDecays& decay) {
  return at::matmul((k * decay.exit).transpose(2, 3), v);
}

// States per sequence [S, H, dk, dv] -> per chunk of the block, decayed: [H, c, dk, dv].
at::Tensor spread(const at::Tensor& states, const Plan& plan, const Block& block,
                  const at::Tensor& log) {
  const auto decay = decays(part_of(log, block)).unsqueeze(-1).unsqueeze(-1);
  return states.index_select(0, plan.sequence.slice(0, block.first_chunk, block.end_chunk))
      .transpose(0, 1)
      .mul(decay);
}

// The state entering each chunk but for initial states, [H, c, dk, dv], from each chunk's `own`.
// carry [H, dk, dv]: the same where the block begins; replaced by that of the next block.
at::Tensor scan(const at::Tensor& own, const Plan& plan, const Block& block,
                const BlockDecays& decay, at::Tensor& carry) {
  auto state = at::matmul(decay.scan, own.flatten(2)).view(own.sizes());
  if (block.first_chunk > 0) {
    const auto before = part_of(plan.before, block);
    const auto weight =
        decays(before - before.slice(1, 0, 1)) * same_sequence(plan, block, block.first_chunk - 1);
    state.addcmul_(carry.unsqueeze(1), weight.unsqueeze(-1).unsqueeze(-1));
  }
  carry = own.select(1, -1) + decay.whole.select(1, -1) * state.select(1, -1);
  return state;
}

// The same from the other end: the gradient of the state leaving each chunk but for that of the
// final states; carry belongs to the state entering the next block.
at::Tensor scan_back(const at::Tensor& own, const Plan& plan, const Block& block,
                     const BlockDecays& decay, at::Tensor& carry) {
  auto state = at::matmul(decay.scan.transpose(1, 2), own.flatten(2)).view(own.sizes());
  if (block.end_chunk < plan.blocks.back().end_chunk) {
    const auto through = part_of(plan.before, block) + part_of(plan.whole, block);
    const auto next = plan.before.slice(1, block.end_chunk, block.end_chunk + 1);
    const auto weight = decays(next - through) * same_sequence(plan, block, block.end_chunk);
    state.addcmul_(carry.unsqueeze(1), weight.unsqueeze(-1).unsqueeze(-1));
  }
  carry = own.select(1, 0) + decay.whole.select(1, 0) * state.select(1, 0);
  return state;
}

// out [S, H, dk, dv] at sequences begin..end-1 that are not empty: own + whole * state of the
// chunks `chunk` [S].
void collect(const at::Tensor& own, const at::Tensor& state, const Plan& plan, const Block& block,
             const BlockDecays& decay, const at::Tensor& chunk, int64_t begin, int64_t end,
             const at::Tensor& out) {
  const auto index = (chunk.slice(0, begin, end) - block.first_chunk).clamp(0, block.chunks() - 1);
  const auto through = at::addcmul(own.index_select(1, index), decay.whole.index_select(1, index),
                                   state.index_select(1, index));
  const auto part = out.slice(0, begin, end);
  part.copy_(at::where(plan.empty.slice(0, begin, end), part, through.transpose(0, 1)));
}

// What of the loss's derivative passes through the decays of a block, fp64: derivatives times what
// they are of.
struct DecayFlow {
  at::Tensor pairs;       // [H, c, C, C] what token i read of token j
  at::Tensor from_state;  // [H, c, C] ... of the entering state
  at::Tensor to_state;    // [H, c, C] what token j left in the leaving state
  at::Tensor through;     // [H, c] what is left there of the entering state
};

// The sum of a b over the dimensions, fp64.
at::Tensor sum_of_products(const at::Tensor& a, const at::Tensor& b, at::IntArrayRef dimensions) {
  return (a * b).sum(dimensions, false, at::kDouble);
}

// The gradient of the log-decays, [H, c, C, 1]: of token t what comes from before it, to it and
// behind. These terms alone are added, since differences of longer sums would lose digits.
at::Tensor decay_gradient(const DecayFlow& flow) {
  const auto ones = at::ones_like(flow.pairs.select(0, 0).select(0, 0));
  const auto before = ones.triu(1), behind = ones.tril();
  const auto pairs = at::matmul(flow.pairs, before).tril_().sum(-2);
  const auto states = at::matmul(flow.from_state, behind) + at::matmul(flow.to_state, before);
  return (pairs + states + flow.through.unsqueeze(-1)).unsqueeze(-1);
}

}  // namespace

LightningResult lightning_aten(const LightningArgs& args, const Sequences& sequences) {
  const int64_t heads = args.q.size(1), dk = args.q.size(2), dv = args.v.size(2);
  const auto floats = args.q.options().dtype(at::kFloat);
  LightningResult out;
  out.o = at::empty({args.q.size(0), heads, dv}, args.q.options());
  out.state = args.state.defined() ? args.state.clone(at::MemoryFormat::Contiguous)
                                   : at::zeros({sequences.count(), heads, dk, dv}, floats);
  if (sequences.num_tokens() == 0) return out;
  const Plan plan = make_plan(args, sequences);
  at::Tensor carry;
  for (const Block& block : plan.blocks) {
    const BlockDecays decay = block_decays(plan, block, args.scale);
    const auto q = pack(args.q, heads, plan, block);
    const auto k = pack(args.k, heads, plan, block);
    const auto v = pack(args.v, heads, plan, block);
    const auto own = own_states(k, v, decay);
    auto state = scan(own, plan, block, decay, carry);
    if (args.state.defined()) state.add_(spread(args.state, plan, block, plan.before));
    const auto weights = at::matmul(q, k.transpose(2, 3)).mul_(decay.mask);
    const auto o = at::matmul(weights, v);
    add_product(o, q * decay.entry, state);
    unpack(o, plan, block, out.o);
    collect(own, state, plan, block, decay, plan.last, block.first_ending, block.end_ending,
            out.state);
  }
  return out;
}

LightningGradients lightning_aten_backward(const LightningArgs& args, const Sequences& sequences,
                                           const at::Tensor& d_o, const at::Tensor& d_state) {
  const int64_t heads = args.q.size(1), dk = args.q.size(2), dv = args.v.size(2);
  const auto floats = args.q.options().dtype(at::kFloat);
  LightningGradients out{at::empty_like(args.q, at::MemoryFormat::Contiguous),
                         at::empty_like(args.k, at::MemoryFormat::Contiguous),
                         at::empty_like(args.v, at::MemoryFormat::Contiguous),
                         d_state.defined() ? d_state.clone(at::MemoryFormat::Contiguous)
                                           : at::zeros({sequences.count(), heads, dk, dv}, floats)};
  if (args.log_decay.defined())
    out.log_decay = at::empty_like(args.log_decay, at::MemoryFormat::Contiguous);
  if (sequences.num_tokens() == 0) return out;
  const Plan plan = make_plan(args, sequences);
  const auto gradient =
      d_o.defined() ? d_o
                    : at::zeros({1, 1, 1}, args.q.options()).expand({args.q.size(0), heads, dv});
  // The states with which the blocks begin; the blocks themselves are then worked through backward.
  std::vector<at::Tensor> carries(1);
  for (size_t i = 0; i + 1 < plan.blocks.size(); ++i) {
    const BlockDecays decay = block_decays(plan, plan.blocks[i], args.scale);
    carries.push_back(carries.back());
    scan(own_states(pack(args.k, heads, plan, plan.blocks[i]),
                    pack(args.v, heads, plan, plan.blocks[i]), decay),
         plan, plan.blocks[i], decay, carries.back());
  }
  at::Tensor carry;
  for (size_t i = plan.blocks.size(); i-- > 0;) {
    const Block& block = plan.blocks[i];
    const BlockDecays decay = block_decays(plan, block, args.scale);
    const auto q = pack(args.q, heads, plan, block);
    const auto k = pack(args.k, heads, plan, block);
    const auto v = pack(args.v, heads, plan, block);
    const auto d = pack(gradient, heads, plan, block);

    auto entering = scan(own_states(k, v, decay), plan, block, decay, carries[i]);
    if (args.state.defined()) entering.add_(spread(args.state, plan, block, plan.before));
    const auto own = at::matmul((q * decay.entry).transpose(2, 3), d);
    auto leaving = scan_back(own, plan, block, decay, carry);
    if (d_state.defined()) leaving.add_(spread(d_state, plan, block, plan.after));
    collect(own, leaving, plan, block, decay, plan.first, block.first_starting, block.end_starting,
            out.state);

    const auto weights = at::matmul(q, k.transpose(2, 3)).mul_(decay.mask);
    const auto d_v = at::matmul(weights.transpose(2, 3), d);
    add_product(d_v, k * decay.exit, leaving);
    unpack(d_v, plan, block, out.v);

    const auto d_products = at::matmul(d, v.transpose(2, 3));
    const auto d_weights = d_products * decay.mask;
    const auto d_k = at::matmul(d_weights.transpose(2, 3), q);
    add_product(d_k, v * decay.exit, leaving.transpose(2, 3));
    unpack(d_k, plan, block, out.k);
    const auto d_q = at::matmul(d_weights, k);
    add_product(d_q, d * decay.entry, entering.transpose(2, 3));
    unpack(d_q, plan, block, out.q);
    if (!args.log_decay.defined()) continue;
    const auto gradient_of_logs =
        decay_gradient({(weights * d_products).to(at::kDouble),
                        sum_of_products(at::matmul(q * decay.entry, entering), d, -1),
                        sum_of_products(at::matmul(k * decay.exit, leaving), v, -1),
                        sum_of_products(decay.whole * entering, leaving, {-2, -1})});
    unpack(gradient_of_logs, plan, block, out.log_decay.unsqueeze(-1));
  }
  return out;
}

}  // namespace halo
