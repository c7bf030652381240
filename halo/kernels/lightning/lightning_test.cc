// Lightning attention against the quadratic formula in fp64, its forms against each other, and what
// packing and splitting must not change.
#include "halo/kernels/lightning/lightning.h"

#include <limits>

#include "ATen/Parallel.h"
#include "halo/base/check.h"
#include "halo/kernels/lightning/lightning_testing.h"
#include "tests/gpu.h"

namespace halo {
namespace {

using namespace test;
using namespace lightning_test;

TEST(Lightning, EqualsTheQuadraticFormulaAtEveryLength) {
  for (const int64_t length : {1, 2, 16, 17, 63, 64, 65, 128, 129, 500}) {
    SCOPED_TRACE(length);
    check_case({.lengths = {length}});
  }
}

TEST(Lightning, EqualsTheQuadraticFormulaPacked) {
  check_case({.lengths = {0, 70, 0, 0, 1, 200, 64, 3, 129, 0}});
  check_case({.lengths = {0, 70, 0, 0, 1, 200, 64, 3, 129, 0}, .with_state = false});
  check_case({.lengths = {128, 128, 64}});
}

TEST(Lightning, SharesKeyAndValueHeads) {
  check_case({.lengths = {100, 30}, .heads = 6, .groups = 2});
  check_case({.lengths = {90}, .heads = 3, .groups = 1, .with_state = false});
}

TEST(Lightning, Bf16AccumulatesInFp32) {
  check_case({.lengths = {0, 70, 1, 150}, .dtype = at::kBFloat16});
  check_case({.lengths = {64, 64}, .heads = 4, .groups = 2, .dtype = at::kBFloat16});
}

TEST(Lightning, ExtremeDecays) {
  check_case({.lengths = {300}, .heads = 3, .groups = 3, .slopes = {0, 30, 1e-9}});
}

// More chunks than one block holds, cut inside and across the blocks' borders. The gradients are
// lightning attention again: dq that of (do, v, k), and backward in time dk that of (v, do, q) and
// dv that of (k, q, do), from the gradient of the final state over scale * g.
TEST(Lightning, CarriesStatesAcrossBlocks) {
  const std::vector<int64_t> lengths{100, 9000, 0, 40, 8200, 0};
  const Case c{
      .lengths = lengths, .heads = 2, .groups = 2, .dk = 4, .dv = 4, .slopes = {0x1p-8, 0x1p-5}};
  const auto args = make_args(c);
  const auto sequences = sequences_of(lengths);
  const auto got = run(fast, args, sequences, at::kFloat);
  const auto d_o = random_tensor(got.result.o.sizes(), 5);
  const auto decay = at::exp(-at::tensor(args.slopes, at::kDouble)).to(at::kFloat);
  const auto d_state =
      random_tensor(got.result.state.sizes(), 6) / args.scale / decay.view({1, c.heads, 1, 1});
  for (int64_t s = 0; s < sequences.count(); ++s) {
    if (lengths[s] == 0) continue;
    const auto part = [&](const at::Tensor& x) {
      return x.slice(0, sequences.offsets()[s], sequences.offsets()[s + 1]);
    };
    const auto attend = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& state) {
      return reference({q, k, v, args.slopes, args.scale, state}, sequences_of({lengths[s]}));
    };
    const auto reversed = [&](const at::Tensor& x) { return part(x).flip(0); };
    const auto state = args.state.slice(0, s, s + 1), d_final = d_state.slice(0, s, s + 1);
    const auto forward = attend(part(args.q), part(args.k), part(args.v), state);
    expect_rms("o", part(got.result.o), forward.o, 5e-5);
    expect_rms("state", got.result.state.slice(0, s, s + 1), forward.state, 5e-5);
    expect_rms("dq", part(got.gradients[0]),
               attend(part(d_o), part(args.v), part(args.k), state.transpose(2, 3)).o, 5e-5);
    expect_rms("dk", reversed(got.gradients[1]),
               attend(reversed(args.v), reversed(d_o), reversed(args.q), d_final.transpose(2, 3)).o,
               5e-5);
    const auto d_v = attend(reversed(args.k), reversed(args.q), reversed(d_o), d_final);
    expect_rms("dv", reversed(got.gradients[2]), d_v.o, 5e-5);
    expect_rms("dstate", got.gradients[3].slice(0, s, s + 1),
               d_v.state * args.scale * decay.view({1, c.heads, 1, 1}), 5e-5);
  }
}

// In fp32 the CPU never runs the form in LibTorch operations, which is what a GPU runs.
TEST(Lightning, ComposedEqualsFused) {
  const std::vector<int64_t> lengths{100, 9000, 0, 40, 8200, 0};
  const auto sequences = sequences_of(lengths);
  const auto args = make_args({.lengths = lengths, .heads = 4, .groups = 2, .dk = 6, .dv = 20});
  const auto want = lightning_cpu(args, sequences), got = lightning_aten(args, sequences);
  expect_rms("o", got.o, want.o, 5e-5);
  expect_rms("state", got.state, want.state, 5e-5);
  const auto d_o = random_tensor(want.o.sizes(), 5), d_state = random_tensor(want.state.sizes(), 6);
  const auto d_want = lightning_cpu_backward(args, sequences, d_o, d_state);
  const auto d_got = lightning_aten_backward(args, sequences, d_o, d_state);
  expect_rms("dq", d_got.q, d_want.q, 5e-5);
  expect_rms("dk", d_got.k, d_want.k, 5e-5);
  expect_rms("dv", d_got.v, d_want.v, 5e-5);
  expect_rms("dstate", d_got.state, d_want.state, 5e-5);
}

// The fast form too: neither other sequences, NaN in them included, nor threads change a bit.
TEST(Lightning, FastBitsDependOnTheSequenceAlone) {
  const auto args = make_args({.lengths = {40, 0, 130}});
  const auto sequences = sequences_of({40, 0, 130});
  LightningArgs packed = args, one = args;
  for (auto part : {&LightningArgs::q, &LightningArgs::k, &LightningArgs::v}) {
    packed.*part = (args.*part).clone();
    (packed.*part).slice(0, 0, 40).fill_(std::numeric_limits<float>::quiet_NaN());
    one.*part = (args.*part).slice(0, 40);
  }
  one.state = args.state.slice(0, 2);
  const auto alone = fast(one, sequences_of({130})), together = fast(packed, sequences);
  expect_equal("o", alone.o, together.o.slice(0, 40));
  expect_equal("state", alone.state, together.state.slice(0, 2));
  const int threads = at::get_num_threads();
  const auto before = run(fast, args, sequences, at::kFloat);
  at::set_num_threads(threads == 1 ? 2 : 1);
  const auto after = run(fast, args, sequences, at::kFloat);
  at::set_num_threads(threads);
  expect_equal("o", after.result.o, before.result.o);
  for (int i = 0; i < 4; ++i) expect_equal("gradient", after.gradients[i], before.gradients[i]);
}

TEST(Lightning, ReferenceBitsDoNotDependOnTheRest) {
  const auto args = make_args({.lengths = {40, 0, 90}});
  const auto packed = reference(args, sequences_of({40, 0, 90}));
  LightningArgs one = args;
  one.q = args.q.slice(0, 40);
  one.k = args.k.slice(0, 40);
  one.v = args.v.slice(0, 40);
  one.state = args.state.slice(0, 2);
  const auto alone = reference(one, sequences_of({90}));
  expect_equal("o", alone.o, packed.o.slice(0, 40));
  expect_equal("state", alone.state, packed.state.slice(0, 2));
  expect_equal("empty", packed.state[1], args.state[1]);
  const int threads = at::get_num_threads();
  at::set_num_threads(threads == 1 ? 2 : 1);
  expect_equal("threads", reference(args, sequences_of({40, 0, 90})).o, packed.o);
  at::set_num_threads(threads);
}

LightningResult in_two(const LightningArgs& args, int64_t cut, Kernels kernels) {
  const int64_t tokens = args.q.size(0);
  LightningArgs head = args, tail = args;
  for (auto part : {&LightningArgs::q, &LightningArgs::k, &LightningArgs::v}) {
    head.*part = (args.*part).slice(0, 0, cut);
    tail.*part = (args.*part).slice(0, cut);
  }
  const auto first = lightning_attention(head, sequences_of({cut}), kernels);
  tail.state = first.state;
  const auto second = lightning_attention(tail, sequences_of({tokens - cut}), kernels);
  return {at::cat({first.o, second.o}), second.state};
}

TEST(Lightning, SplitAnywhereEqualsOneGo) {
  const auto args = make_args({.lengths = {200}, .with_state = false});
  const auto once_reference = reference(args, sequences_of({200}));
  const auto once_fast = fast(args, sequences_of({200}));
  expect_rms("forms", once_fast.o, once_reference.o, 5e-5);
  for (const int64_t cut : {0, 1, 10, 63, 64, 65, 128, 199, 200}) {
    SCOPED_TRACE(cut);
    const auto split = in_two(args, cut, Kernels::kReference);
    expect_equal("o", split.o, once_reference.o);
    expect_equal("state", split.state, once_reference.state);
    const auto split_fast = in_two(args, cut, Kernels::kFast);
    expect_rms("o", split_fast.o, once_fast.o, 5e-5);
    expect_rms("state", split_fast.state, once_fast.state, 5e-5);
  }
}

TEST(Lightning, GradientOfTheOutputAloneAndStridedInputs) {
  const Case c{.lengths = {70, 20}};
  const auto args = make_args(c);
  const auto sequences = sequences_of(c.lengths);
  const auto want = run(fast, args, sequences, at::kFloat, /*use_state_gradient=*/false);
  // q, k as columns of one wider tensor, as a stacked projection gives them.
  const auto stacked = leaf(at::cat({args.q, args.k}, 2), at::kFloat);
  LightningArgs strided = args;
  strided.q = stacked.slice(2, 0, c.dk);
  strided.k = stacked.slice(2, c.dk);
  const auto got = fast(strided, sequences);
  expect_equal("o", got.o, want.result.o);
  const auto gradient =
      torch::autograd::grad({got.o}, {stacked}, {random_tensor(got.o.sizes(), 5)});
  expect_equal("dq, dk", gradient[0], at::cat({want.gradients[0], want.gradients[1]}, 2));
}

TEST(Lightning, NoTokens) {
  const Case c{.lengths = {0, 0}};
  const auto args = make_args(c);
  const auto got = run(fast, args, sequences_of(c.lengths), at::kFloat);
  EXPECT_EQ(got.result.o.size(0), 0);
  expect_equal("state", got.result.state, args.state);
  expect_equal("dstate", got.gradients[3], random_tensor(args.state.sizes(), 6));
}

TEST(Lightning, RefusesWrongShapes) {
  auto args = make_args({.lengths = {5}});
  EXPECT_THROW(fast(args, sequences_of({4})), std::exception);
  args.slopes.pop_back();
  EXPECT_THROW(fast(args, sequences_of({5})), std::exception);
  args = make_args({.lengths = {5}});
  args.state = args.state.to(at::kBFloat16);
  EXPECT_THROW(fast(args, sequences_of({5})), std::exception);
}

TEST(Lightning, SegmentsRememberEnoughAndFillTheDevice) {
  constexpr int64_t kSlots = 132;
  for (const int64_t tokens : {1, 63, 500, 2048, 16384, 131072, 1000000}) {
    for (const int64_t max_length : {tokens, std::min<int64_t>(tokens, 512)}) {
      SCOPED_TRACE(std::to_string(tokens) + " tokens, longest " + std::to_string(max_length));
      LightningShape shape{.tokens = tokens, .max_length = max_length, .slopes = alibi_slopes(16)};
      shape.slopes.push_back(0);
      const auto plan = plan_segments(shape, kSlots, 24);
      ASSERT_EQ(plan.size(), shape.slopes.size());
      int64_t blocks = 0;
      for (size_t h = 0; h < plan.size(); ++h) {
        EXPECT_EQ(plan[h].segment % 64, 0);
        EXPECT_EQ(plan[h].warmup % 64, 0);
        ASSERT_GT(plan[h].segment, 0);
        const double left = std::exp2(-24), decay = shape.slopes[h] * plan[h].warmup;
        EXPECT_TRUE(std::exp(-decay) <= left * 1.001 || plan[h].warmup >= max_length - 1);
        blocks += (tokens + plan[h].segment - 1) / plan[h].segment;
      }
      EXPECT_LE(blocks, kSlots);
      if (tokens >= 131072) {
        EXPECT_GE(blocks, kSlots * 8 / 10);
      }
    }
  }
}

// The kernels' results and gradients in one form, without autograd; `run` draws the same gradients.
Outcome run_kernel(const LightningArgs& args, const Sequences& sequences, LightningKernel kernel) {
  Outcome out{lightning_cuda(args, sequences, kernel), {}};
  const auto d_o = random_tensor(out.result.o.sizes(), 5, args.q.scalar_type()).cuda();
  const auto d_state = random_tensor(out.result.state.sizes(), 6).cuda();
  const auto d = lightning_cuda_backward(args, sequences, d_o, d_state, kernel);
  out.gradients = {d.q, d.k, d.v};
  if (args.state.defined()) out.gradients.push_back(d.state);
  return out;
}

void expect_same_bits(const Outcome& got, const Outcome& want) {
  expect_equal("o", got.result.o, want.result.o);
  expect_equal("state", got.result.state, want.result.state);
  for (size_t i = 0; i < want.gradients.size(); ++i)
    expect_equal("gradient " + std::to_string(i), got.gradients[i], want.gradients[i]);
}

void check_gpu_case(const Case& c, std::initializer_list<LightningKernel> forms) {
  const test::PoisonUninitialized poison;
  const test::CudaKernelsSetting all("all");
  const auto args = make_args(c);
  const auto want = run(quadratic, args, sequences_of(c.lengths), at::kDouble);
  const auto plain = run(quadratic, args, sequences_of(c.lengths), c.dtype);
  const auto sequences = sequences_of(c.lengths, at::kCUDA);
  const char* names[] = {"dq", "dk", "dv", "dstate"};
  for (const auto kernel : forms) {
    SCOPED_TRACE("kernel " + std::to_string(static_cast<int>(kernel)));
    const auto got = run_kernel(on_gpu(args), sequences, kernel);
    expect_close("o", got.result.o.cpu(), want.result.o, plain.result.o);
    expect_close("state", got.result.state.cpu(), want.result.state, plain.result.state);
    for (size_t i = 0; i < got.gradients.size(); ++i)
      expect_close(names[i], got.gradients[i].cpu(), want.gradients[i], plain.gradients[i]);
    expect_same_bits(run_kernel(on_gpu(args), sequences, kernel), got);
    if (kernel == lightning_kernel_for(got.result.o))
      expect_same_bits(run(fast, on_gpu(args), sequences, c.dtype), got);
  }
}

// Both bf16 forms (sm_90a's only where it runs) and the fp32 one.
LightningKernel bf16_form() {
  return lightning_kernel_for(at::empty({1}, at::TensorOptions(at::kBFloat16).device(at::kCUDA)));
}

void check_on_gpu(Case c) {
  for (const int64_t d : {64, 128}) {
    SCOPED_TRACE("head size " + std::to_string(d));
    c.dk = c.dv = d;
    c.dtype = at::kFloat;
    check_gpu_case(c, {LightningKernel::kRecurrent});
    c.dtype = at::kBFloat16;
    check_gpu_case(c, {LightningKernel::kMma});
    if (bf16_form() == LightningKernel::kWgmma) check_gpu_case(c, {LightningKernel::kWgmma});
  }
}

TEST(LightningCuda, EveryLength) {
  HALO_NEEDS_GPU();
  for (const int64_t length : {1, 63, 64, 65, 500}) {
    SCOPED_TRACE(length);
    check_on_gpu({.lengths = {length}});
  }
}

TEST(LightningCuda, PackedSequences) {
  HALO_NEEDS_GPU();
  check_on_gpu({.lengths = {0, 70, 0, 0, 1, 200, 64, 3, 129, 0}});
  check_on_gpu({.lengths = {0, 70, 0, 0, 1, 200, 64, 3, 129, 0}, .with_state = false});
}

TEST(LightningCuda, SharedKeyAndValueHeadsAndExtremeDecays) {
  HALO_NEEDS_GPU();
  check_on_gpu({.lengths = {100, 30}, .heads = 6, .groups = 2});
  check_on_gpu({.lengths = {300}, .heads = 3, .groups = 3, .slopes = {0, 30, 1e-9}});
  check_on_gpu({.lengths = {70}, .heads = 70, .groups = 70});  // more heads than one launch takes
}

// What lies in the rows of other sequences, NaN too, stays there.
TEST(LightningCuda, SequencesDoNotMix) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const Case c{.lengths = {70, 90, 30}, .dk = 128, .dv = 128, .dtype = at::kBFloat16};
  const auto sequences = sequences_of(c.lengths, at::kCUDA);
  const auto args = on_gpu(make_args(c));
  auto spoilt = args;
  for (auto part : {&LightningArgs::q, &LightningArgs::k, &LightningArgs::v}) {
    spoilt.*part = (args.*part).clone();
    (spoilt.*part).slice(0, 70, 160).fill_(NAN);
  }
  for (const auto kernel : {LightningKernel::kMma, lightning_kernel_for(args.q)}) {
    const auto want = run_kernel(args, sequences, kernel),
               got = run_kernel(spoilt, sequences, kernel);
    const auto others = [](const at::Tensor& x) {
      return at::cat({x.slice(0, 0, 70), x.slice(0, 160)});
    };
    expect_equal("o", others(got.result.o), others(want.result.o));
    for (int i = 0; i < 3; ++i)
      expect_equal("gradient", others(got.gradients[i]), others(want.gradients[i]));
  }
}

TEST(LightningCuda, RowsInsideAWiderTensor) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const test::PoisonUninitialized poison;
  const Case c{.lengths = {70, 20}, .dk = 64, .dv = 64, .dtype = at::kBFloat16};
  const auto sequences = sequences_of(c.lengths, at::kCUDA);
  const auto args = on_gpu(make_args(c));
  const auto want = run_kernel(args, sequences, lightning_kernel_for(args.q));
  auto strided = args;
  const auto wide = at::cat({args.q, args.k}, 2);
  strided.q = wide.slice(2, 0, 64);
  strided.k = wide.slice(2, 64);
  strided.v = args.v.transpose(1, 2).contiguous().transpose(1, 2);  // must be copied
  expect_same_bits(run_kernel(strided, sequences, lightning_kernel_for(strided.q)), want);
}

// Many segments a head, 131,072 tokens: against the recurrence on the CPU in fp32, its gradients
// by the identities of CarriesStatesAcrossBlocks. One rounding of bf16 is the tolerance.
TEST(LightningCuda, LongSequence) {
  HALO_NEEDS_GPU();
  const test::CudaKernelsSetting all("all");
  const Case c{.lengths = {131072},
               .heads = 1,
               .groups = 1,
               .dk = 128,
               .dv = 128,
               .with_state = false,
               .dtype = at::kBFloat16,
               .slopes = {0x1p-8}};
  const auto args = make_args(c);
  const auto got = run(fast, on_gpu(args), sequences_of(c.lengths, at::kCUDA), c.dtype,
                       /*use_state_gradient=*/false);
  const auto d_o = random_tensor(args.q.sizes(), 5, c.dtype);
  const auto attend = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    const auto as_float = [](const at::Tensor& x) { return x.to(at::kFloat); };
    return reference({as_float(q), as_float(k), as_float(v), c.slopes, args.scale},
                     sequences_of(c.lengths));
  };
  const auto back = [](const at::Tensor& x) { return x.flip(0); };
  const auto forward = attend(args.q, args.k, args.v);
  const double rounding = test::unit_roundoff(c.dtype);
  expect_rms("o", got.result.o.cpu(), forward.o, rounding);
  expect_rms("state", got.result.state.cpu(), forward.state, rounding);
  expect_rms("dq", got.gradients[0].cpu(), attend(d_o, args.v, args.k).o, rounding);
  expect_rms("dk", got.gradients[1].cpu(), back(attend(back(args.v), back(d_o), back(args.q)).o),
             rounding);
  expect_rms("dv", got.gradients[2].cpu(), back(attend(back(args.k), back(args.q), back(d_o)).o),
             rounding);
}

TEST(Lightning, AlibiSlopes) {
  EXPECT_EQ(alibi_slopes(1), std::vector<double>{0x1p-8});
  EXPECT_EQ(alibi_slopes(8).front(), 0.5);
  EXPECT_EQ(alibi_slopes(8).back(), 0x1p-8);
  const auto six = alibi_slopes(6), four = alibi_slopes(4), eight = alibi_slopes(8);
  EXPECT_EQ(std::vector<double>(six.begin(), six.begin() + 4), four);
  EXPECT_EQ(six[4], eight[0]);
  EXPECT_EQ(six[5], eight[2]);
}

}  // namespace
}  // namespace halo
