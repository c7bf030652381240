#!/bin/bash
# harness_test.sh HALO MODEL DATA: `halo eval --tasks` on SmolLM2-135M-Instruct says, item by item, what
# lm-evaluation-harness said of the same weights (lm_eval.jsonl beside this, made by comparisons/harness.py): 20 items a
# task.
set -eu
halo=$1 model=$2 data=$3
samples=$(mktemp)
trap 'rm -f "$samples"' EXIT
tasks=$(grep -o '"task": "[a-z_0-9]*"' tests/harness/lm_eval.jsonl | cut -d'"' -f4 | sort -u | paste -sd,)
"$halo" eval "$model" --tasks "$tasks" --data "$data" --limit 20 --log-samples "$samples"
python3 comparisons/harness.py compare tests/harness/lm_eval.jsonl "$samples"
