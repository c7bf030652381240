#!/bin/bash
# Checks the layout: a part includes only parts of lower rank, Torch stays out of the parts that do
# without it, and files stay short. Prints every violation; exit 1 if there is one.
set -u
cd "$(dirname "$0")/.."

declare -A rank=(
  [base]=0
  [formats]=1 [tokenizer]=1 [kernels]=1
  [model]=2 [data]=2
  [train]=3 [engine]=3
  [eval]=4
  [stages]=5 [report]=5 [server]=5
  [bench]=6
  [cli]=7
)
violations=0
violation() {
  echo "$1"
  violations=$((violations + 1))
}

# halo/model/decoder.cc:5:#include "halo/kernels/x.h"
while IFS= read -r line; do
  [[ $line =~ ^halo/([a-z]+)/[^:]*:[0-9]+:.*\"halo/([a-z]+)/ ]] || {
    violation "$line: cannot be told which part that is"
    continue
  }
  from=${BASH_REMATCH[1]} to=${BASH_REMATCH[2]}
  if [[ -z ${rank[$from]:-} || -z ${rank[$to]:-} ]]; then
    violation "$line: unknown part"
  elif [[ $from != "$to" && ${rank[$to]} -ge ${rank[$from]} ]]; then
    violation "$line: $from (rank ${rank[$from]}) may not include $to (rank ${rank[$to]})"
  fi
done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"halo/' halo)

while IFS= read -r line; do
  violation "$line: name the header by its path from the root, so that its part can be told"
done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"([^/"]*|\.[^"]*)"' halo)

while IFS= read -r line; do
  violation "$line: torch/torch.h costs half a minute a file; include what is used"
done < <(grep -rnE '#[[:space:]]*include.*torch/torch\.h' halo)

while IFS= read -r line; do
  violation "$line: no Torch here"
done < <(grep -rnE '#[[:space:]]*include[[:space:]]*[<"](ATen|torch|c10)/' \
  $(ls -d halo/{base,formats,tokenizer,report} 2>/dev/null) \
  $(find halo -name '*.cu' -o -name '*.cuh') /dev/null)

while IFS= read -r file; do
  lines=$(wc -l < "$file")
  ((lines <= 800)) || violation "$file: $lines lines, more than 800"
done < <(find halo tests -type f)

if ((violations)); then
  echo "$violations violations"
  exit 1
fi
echo "layers: no violations"
