// Multiple choice by log-likelihood: the choice that the model finds likeliest.
#pragma once

#include "halo/eval/tasks/item_file.h"
#include "halo/eval/tasks/task.h"

namespace halo {

// {"id", "context", "choices", "label"}: each choice after the context and a space. Figures acc and
// acc_norm, the latter by log-likelihood over the choice's characters, as lm-evaluation-harness has
// it.
TaskItem choice_item(const ItemLine& line);

// The context has a `_`; each choice takes its place, and what is behind it is scored: only there
// do the choices differ in what they make likely. Figure acc: all have the same text scored.
TaskItem winogrande_item(const ItemLine& line);

}  // namespace halo
