#include "halo/engine/step_batch.h"

#include <gtest/gtest.h>

#include "ATen/ATen.h"
#include "halo/base/random.h"

namespace halo {
namespace {

struct Sequence {
  int64_t id;
  std::vector<int64_t> blocks;
};

void expect_rows(const at::Tensor& table, const std::vector<Sequence>& sequences) {
  for (size_t i = 0; i < sequences.size(); ++i) {
    const int32_t* row = table[static_cast<int64_t>(i)].const_data_ptr<int32_t>();
    const std::vector<int64_t>& blocks = sequences[i].blocks;
    EXPECT_EQ(std::vector<int64_t>(row, row + blocks.size()), blocks) << "row " << i;
  }
}

// Sequences come, grow and go, as in a scheduler, and so move to other rows.
TEST(RowBlocks, ARowHasTheBlocksOfWhoIsInIt) {
  constexpr int64_t kRows = 8, kMost = 6;
  const at::Tensor table = at::full({kRows, kMost}, -7, at::kInt);
  RowBlocks rows(table);
  std::vector<Sequence> sequences;
  int64_t next_id = 0, next_block = 0;
  for (uint64_t step = 0; step < 300; ++step) {
    const Random random(3, "row blocks", step);
    if (random.below(0, 3) == 0 && std::ssize(sequences) < kRows)
      sequences.push_back({next_id++, {next_block++}});
    if (random.below(1, 5) == 0 && !sequences.empty())
      sequences.erase(sequences.begin() + random.below(2, std::ssize(sequences)));
    for (size_t i = 0; i < sequences.size(); ++i) {
      if (random.below(3 + i, 4) == 0 && std::ssize(sequences[i].blocks) < kMost)
        sequences[i].blocks.push_back(next_block++);
    }
    std::vector<StepRow> now;
    for (const Sequence& sequence : sequences)
      now.push_back({sequence.id, {}, 0, 0, &sequence.blocks});
    rows.send(now);
    SCOPED_TRACE(testing::Message() << "step " << step);
    expect_rows(table, sequences);
  }
}

TEST(RowBlocks, WhatIsThereIsNotSentAgain) {
  const at::Tensor table = at::zeros({3, 2}, at::kInt);
  RowBlocks rows(table);
  const std::vector<Sequence> sequences{{5, {1, 2}}, {6, {3}}, {7, {4, 5}}};
  std::vector<StepRow> now;
  for (const Sequence& sequence : sequences)
    now.push_back({sequence.id, {}, 0, 0, &sequence.blocks});
  rows.send(now);
  expect_rows(table, sequences);
  table.fill_(-7);
  rows.send(now);
  EXPECT_TRUE(table.eq(-7).all().item<bool>());
  // The last one leaves, and others stay where they are.
  now.pop_back();
  rows.send(now);
  EXPECT_TRUE(table.eq(-7).all().item<bool>());
}

}  // namespace
}  // namespace halo
