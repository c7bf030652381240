#!/bin/bash
# harness_test.sh HALO MODEL DATA [SAID [ITEMS]]: `halo eval --tasks` on SmolLM2-135M-Instruct says, item by item, what
# lm-evaluation-harness said of the same weights in SAID (lm_eval.jsonl beside this, made by comparisons/harness.py):
# 20 items a task, or ITEMS.
set -eu
halo=$1 model=$2 data=$3 said=${4:-tests/harness/lm_eval.jsonl} items=${5:-20}
samples=$(mktemp)
trap 'rm -f "$samples"' EXIT
tasks=$(grep -o '"task": "[a-z_0-9]*"' "$said" | cut -d'"' -f4 | sort -u | paste -sd,)
"$halo" eval "$model" --tasks "$tasks" --data "$data" --limit "$items" --log-samples "$samples"
python3 comparisons/harness.py compare "$said" "$samples"
