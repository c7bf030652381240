#!/bin/bash
# make_exports.sh HALO EXPORT_MODELS OUT: what the export tests compare. Every OUT/NN, and OUT/demo, a hybrid
# made from demo/teacher, holds model, its export, ids.safetensors, and in expected.safetensors our
# logits and greedy tokens, which must be the same bytes from both: halo reads what it exports.
set -euo pipefail
halo=$1 export_models=$2 out=$3
cd "$(dirname "$0")/../.."
rm -rf "$out"
mkdir -p "$out"
"$export_models" "$out"

# The pipeline on next to no tokens, with gates that let anything through.
settings=(align.tokens=4096 align.warmup_steps=1 align_attention.tokens=0 distill.tokens=4096
  distill.warmup_steps=1
  "select.rule='even'" select.needle_haystacks=1 select.needle_questions=1 select.held_out_rows=1
  "scale.candidates=[300]" "scale.lengths=[2048]" scale.haystacks=1 scale.questions=1
  scale.documents=1 "eval.lengths=[1024]" eval.held_out_tokens=2048 eval.haystacks=1
  eval.questions=1 eval.position_documents=1 gates.align_explained_variance=-1e9
  gates.select_ratio=1e9 gates.distill_kl=1e9 gates.scale_needle=0)
"$halo" convert demo/demo.toml --run "$out/run" --set "${settings[@]}" > "$out/convert.log" 2>&1 || {
  cat "$out/convert.log"
  exit 1
}
mv "$out/run/model" "$out/demo/model"

for folder in "$out"/[0-9]* "$out/demo"; do
  run=()
  if [[ $folder == */demo ]]; then run=(--run "$out/run"); fi
  "$halo" export "$folder/model" --out "$folder/export" "${run[@]}" > /dev/null
  for model in model export; do
    "$halo" logits "$folder/$model" --ids "$folder/ids.safetensors" --generate 12 \
      --out "$folder/$model.safetensors"
  done
  cmp "$folder/model.safetensors" "$folder/export.safetensors"
  cmp "$folder/model/model.safetensors" "$folder/export/model.safetensors"
  mv "$folder/model.safetensors" "$folder/expected.safetensors"
done
cmp demo/teacher/tokenizer.json "$out/demo/export/tokenizer.json"

# What halo inspect says of them.
find() { grep -q -- "$1" <<< "$2" || { echo "halo inspect: no '$1' in: $2"; exit 1; }; }
find '^{$' "$("$halo" inspect "$out/demo/export" --json)"
find '^mixers  .*A' "$("$halo" inspect "$out/demo/export")"
find ' equal, 0 different, 0 only in .*, 0 only in ' \
  "$("$halo" inspect --diff "$out/demo/model" "$out/demo/export")"
audit=$("$halo" inspect --audit "$out/run/transfer/step-0" --teacher demo/teacher)
for check in norms kv-heads gates; do find "^$check: " "$audit"; done
