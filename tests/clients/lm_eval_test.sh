#!/bin/bash
# lm_eval_test.sh HALO MODEL [DATA [ITEMS]]: lm-evaluation-harness that asks `halo serve` for completions over HTTP gets
# what `halo eval --tasks` says of the same items: the same choices and written answers, log-likelihoods within 1e-3 nats.
# The items beside this, or the first ITEMS of a task in DATA.
set -eu
cd "$(dirname "$0")/../.."
halo=$1 model=$2 data=${3:-tests/clients/items} items=${4:-0}
tasks=hellaswag,arc_easy,lambada,squad_v1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CLIENT=lm_eval tests/clients/environment comparisons/harness.py run "$model" "$data" "$work/served" --serve "$halo" \
  --tasks "$tasks" --limit "$items" --batch 4
"$halo" eval "$model" --tasks "$tasks" --data "$data" --limit "$items" --log-samples "$work/in-process"
test "$(wc -l < "$work/served")" = "$(wc -l < "$work/in-process")"
python3 comparisons/harness.py compare "$work/served" "$work/in-process"
