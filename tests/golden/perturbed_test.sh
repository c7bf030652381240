#!/bin/bash
# perturbed_test.sh PROGRAM ROOT: one wrong expected value makes the program fail, and only that.
set -eu
program=$1 root=$2
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

# expect CODE TEXT: the exit code of a run on the tree and a line it prints.
expect() {
  local code=0 output
  output=$("$program" "$tree") || code=$?
  if [[ $code != "$1" || $output != *"$2"* ]]; then
    printf 'expected exit %s and "%s", got exit %s and:\n%s\n' "$1" "$2" "$code" "$output"
    exit 1
  fi
}

mkdir "$tree/not-a-form"
expect 1 "nothing there could be compared"

# The last byte of the file is the exponent of the last logit.
mkdir "$tree/hypenet-options"
cp -r "$root/hypenet-options/bias" "$tree/hypenet-options/renamed"
chmod -R u+w "$tree"
expect 0 "ok    hypenet-options/renamed: worst"
expected=$tree/hypenet-options/renamed/expected.safetensors
printf '\x45' | dd of="$expected" bs=1 seek=$(($(stat -c %s "$expected") - 1)) conv=notrunc status=none
expect 1 "FAIL  hypenet-options/renamed: worst"
rm -r "$tree/hypenet-options"

cp -r "$root/logit-scale" "$tree/"
chmod -R u+w "$tree"
expect 0 "ok    logit-scale: worst"
# Too much by 2e-6 of the value.
sed -i '0,/"s": 1\.0,/s//"s": 1.000002,/' "$tree/logit-scale/expected.json"
expect 1 "FAIL  logit-scale: worst 2.0e-06 of 1e-06"
rm "$tree/logit-scale/expected.json"
expect 1 "FAIL  logit-scale: "
echo "wrong expected values are found"
