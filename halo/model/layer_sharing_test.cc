// Stores that ranks, which here are threads, have between them.
#include "halo/model/layer_sharing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/model/parameters.h"
#include "halo/runtime/ranks.h"
#include "tests/testing.h"

namespace halo {
namespace {

using Use = ParameterStore::Use;

constexpr Shard kEach[] = {Shard::kNone, Shard::kOptimizer, Shard::kFull};

// Layers of 216 and 5 elements, in three parts of which some are padding; others around them.
std::vector<ParameterSpec> specs() {
  return {{"model.embed_tokens.weight", {20, 10}},
          {"model.layers.0.q", {9, 10}},
          {"model.layers.0.k", {6, 10}, true},
          {"model.layers.0.norm", {2}},
          {"model.layers.1.q", {5}},
          {"model.norm.weight", {3}}};
}

// Small whole numbers, of which sums are exact.
at::Tensor values_of(const ParameterSpec& spec, double factor = 1) {
  const int64_t size = num_parameters({spec});
  return (at::arange(size, at::kFloat).remainder(17) + static_cast<double>(spec.name.size()))
      .mul(factor)
      .view(spec.shape);
}

void write_all(ParameterStore& store) {
  for (const ParameterSpec& spec : specs()) store.write(spec.name, values_of(spec));
}

// Those of layers.
std::vector<ParameterSpec> layer_specs() {
  const std::vector<ParameterSpec> all = specs();
  return {all.begin() + 1, all.end() - 1};
}

// A store on each of three ranks.
void on_three(Use use, Shard shard, at::ScalarType compute,
              const std::function<void(ParameterStore&, Communicator&)>& check) {
  run_threads(3, 60, [&](Communicator& ranks) {
    ParameterStore store(specs(), use, compute, at::kCPU, {&ranks, shard});
    check(store, ranks);
  });
}

TEST(LayerSharing, EachRankKeepsItsLayers) {
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    run_threads(3, 60, [&](Communicator& ranks) {
      ParameterStore store(layer_specs(), Use::kTrained, compute, at::kCPU,
                           {&ranks, Shard::kFull, /*by_layer=*/true});
      EXPECT_EQ(store.layers(), nullptr);
      EXPECT_FALSE(store.keeps_all());
      // Of 216 and 5 elements; the third rank has nothing to do.
      const std::vector<int64_t> sizes{384, 192, 0};
      EXPECT_EQ(store.master().numel(), sizes[ranks.rank()]);
      EXPECT_EQ(store.grad().numel(), sizes[ranks.rank()]);
      EXPECT_EQ(store.moment1().numel(), sizes[ranks.rank()]);
      for (const ParameterSpec& spec : layer_specs()) store.write(spec.name, values_of(spec));
      store.refresh_compute();
      for (const ParameterSpec& spec : layer_specs()) {
        const bool own = layer_of(spec.name) == ranks.rank();
        EXPECT_EQ(store.has_layer(layer_of(spec.name)), own);
        const ParameterStore::Piece piece = store.kept_piece(spec);
        EXPECT_EQ(piece.size, own ? num_parameters({spec}) : 0) << spec.name;
        EXPECT_EQ(piece.in_parameter, 0);
        if (!own) {
          EXPECT_THAT(test::error_of([&] { store.weight(spec.name); }),
                      testing::HasSubstr("is another rank's"));
          continue;
        }
        EXPECT_TRUE(at::equal(store.weight(spec.name).value.to(at::kFloat), values_of(spec)));
        EXPECT_TRUE(at::equal(store.master().narrow(0, piece.in_arena, piece.size),
                              values_of(spec).flatten()));
      }
      if (ranks.rank() > 0) return;
      store.stack("model.layers.0.q", "model.layers.0.k").grad.fill_(2);
      EXPECT_EQ(store.grad().sum().item<float>(), 2 * 150);
    });
  }
}

TEST(LayerSharing, EachRankKeepsItsPart) {
  // Each group is padded to a multiple of 3 x 64 elements.
  const int64_t all = 384 + 384 + 192 + 192;
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    on_three(Use::kTrained, Shard::kOptimizer, compute, [&](ParameterStore& store, Communicator&) {
      EXPECT_EQ(store.groups().size(), 4u);
      EXPECT_EQ(store.master().numel(), all / 3);
      EXPECT_EQ(store.grad().numel(), all);
      EXPECT_EQ(store.moment2().numel(), all / 3);
      EXPECT_EQ(store.compute().numel(), all);
    });
    on_three(Use::kTrained, Shard::kFull, compute, [&](ParameterStore& store, Communicator&) {
      EXPECT_EQ(store.master().numel(), all / 3);
      EXPECT_EQ(store.grad().numel(), all / 3);
      EXPECT_FALSE(store.compute().defined());
    });
    on_three(Use::kFrozen, Shard::kFull, compute, [&](ParameterStore& store, Communicator&) {
      EXPECT_FALSE(store.master().defined() || store.grad().defined());
      EXPECT_FALSE(store.keeps_all());
    });
    on_three(Use::kFrozen, Shard::kOptimizer, compute, [&](ParameterStore& store, Communicator&) {
      EXPECT_EQ(store.layers(), nullptr) << "nothing of it is divided";
    });
  }
}

// Whatever each keeps: all ranks read what was written, and after an update what each made of its
// part.
TEST(LayerSharing, AllReadTheSameValues) {
  for (const Shard shard : kEach) {
    for (const Use use : {Use::kFrozen, Use::kTrained}) {
      for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
        on_three(use, shard, compute, [&](ParameterStore& store, Communicator&) {
          const auto expect = [&](double factor) {
            size_t visited = 0;
            store.visit_values([&](const ParameterSpec& spec, const at::Tensor& value) {
              EXPECT_TRUE(at::equal(value.to(at::kFloat), values_of(spec, factor))) << spec.name;
              ++visited;
            });
            EXPECT_EQ(visited, specs().size());
          };
          write_all(store);
          expect(1);
          if (use == Use::kFrozen) return;
          store.master().mul_(2);
          store.refresh_compute();
          expect(2);
        });
      }
    }
  }
}

// Of two micro-batches, on which every rank has a gradient of its own.
TEST(LayerSharing, SumsTheMicroBatchesOfAllRanks) {
  for (const Shard shard : kEach) {
    for (const bool recorded : {false, true}) {
      if (recorded && shard == Shard::kFull) continue;
      SCOPED_TRACE(fmt::format("shard {}, recorded {}", static_cast<int>(shard), recorded));
      on_three(Use::kTrained, shard, at::kFloat, [&](ParameterStore& store, Communicator& ranks) {
        write_all(store);
        std::vector<Weight> weights;
        for (const ParameterSpec& spec : specs()) weights.push_back(store.weight(spec.name));
        LayerSharing& layers = *store.layers();
        store.zero_grad();
        layers.begin_step(2);
        for (const double batch : {1.0, 10.0}) {
          const auto add = [&](size_t i) {
            weights[i].grad.add_(values_of(specs()[i], batch * (1 + ranks.rank())));
            EXPECT_TRUE(at::equal(weights[i].value, values_of(specs()[i])));
          };
          layers.begin(recorded);
          for (const int64_t layer : {0, 1}) {
            layers.acquire(layer, layer + 1, false);
            layers.release(layer);
          }
          add(5);
          layers.acquire(1, 0, true);
          add(4);
          layers.release(1);
          layers.acquire(0, -1, true);
          for (const size_t i : {1, 2, 3}) add(i);
          layers.release(0);
          add(0);
          layers.end();
        }
        for (size_t i = 0; i < specs().size(); ++i) {
          const ParameterSpec spec = specs()[i];
          const int64_t layer = layer_of(spec.name);
          for (const ParameterStore::Group& group : store.groups()) {
            const Range whole_range{store.offset(spec.name), num_parameters({spec})};
            const Range own = intersection(whole_range, group.own);
            if (group.layer != layer || own.size == 0) continue;
            EXPECT_TRUE(at::equal(
                store.summed_gradient(group).narrow(0, own.begin - group.own.begin, own.size),
                values_of(spec, 11 * (1 + 2 + 3))
                    .flatten()
                    .narrow(0, own.begin - whole_range.begin, own.size)))
                << spec.name;
          }
        }
      });
    }
  }
}

// Handles are made once; what they show comes and goes.
TEST(LayerSharing, ALayersWeightsAreThereWhileItIsUsed) {
  on_three(Use::kFrozen, Shard::kFull, at::kBFloat16, [&](ParameterStore& store, Communicator&) {
    write_all(store);
    const Weight first = store.stack("model.layers.0.q", "model.layers.0.k"),
                 second = store.weight("model.layers.1.q");
    EXPECT_EQ(first.value.const_data_ptr(), nullptr);
    for (int64_t pass = 0; pass < 3; ++pass) {
      store.layers()->acquire(0, 1, false);
      EXPECT_EQ(first.value[8][9].item<float>(), values_of(specs()[1])[8][9].item<float>());
      EXPECT_EQ(first.value[9][1].item<float>(), values_of(specs()[2])[0][1].item<float>());
      EXPECT_EQ(second.value.const_data_ptr(), nullptr);
      store.layers()->release(0);
      EXPECT_EQ(first.value.const_data_ptr(), nullptr);
      store.layers()->acquire(1, 2, false);
      EXPECT_TRUE(at::equal(second.value.to(at::kFloat), values_of(specs()[4])));
      store.layers()->release(1);
    }
  });
}

}  // namespace
}  // namespace halo
