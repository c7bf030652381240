#!/bin/bash
# install_test.sh BUILD: `cmake --install` to a prefix gives a program that runs with nothing of the
# checkout, its manual page and its completions.
set -euo pipefail
build=$1
source=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
prefix=$folder/usr
cd "$folder"
fail() {
  echo "install_test: $1" >&2
  exit 1
}

cmake --install "$build" --prefix "$prefix" > install.log || { cat install.log; exit 1; }
halo() { env -i PATH=/usr/bin:/bin HOME="$folder" "$prefix/bin/halo" "$@"; }

# Every library comes from the prefix or the system.
ldd "$prefix/bin/halo" > libraries.txt
if grep -E "not found|$source/" libraries.txt; then fail "a library is missing or the checkout's"; fi
[[ $(grep -c "$prefix/bin/../lib/halo/" libraries.txt) -ge 3 ]] || fail "LibTorch is not the prefix's"

[[ $(halo --version) =~ ^halo\ [0-9]+\.[0-9]+\.[0-9]+ ]] || fail "halo --version: $(halo --version)"
cp -r "$source/demo/teacher" teacher
printf '{"text": "It was a dark night."}\n' > texts.jsonl
halo inspect teacher --json > inspect.json
[[ $(halo tokenize teacher --jsonl texts.jsonl) == *[0-9]* ]] || fail "halo tokenize prints no ids"

# The page has an entry for each command, as `halo COMMAND --help` has.
page=$prefix/share/man/man1/halo.1
for command in convert "data pack" "bench train" completion; do
  grep -q "^\.SS halo ${command}\$" "$page" || fail "halo.1 has no halo $command"
done
grep -q 'fB\\-\\-resume\\fR' "$page" || fail "halo.1 has no --resume"

# complete WORD...: what bash offers after these words.
complete_words() {
  (
    complete() { :; }
    # shellcheck disable=SC1091
    source "$prefix/share/bash-completion/completions/halo"
    COMP_WORDS=(halo "$@")
    COMP_CWORD=$#
    _halo
    echo "${COMPREPLY[*]}"
  )
}
expect() {
  local wanted=$1
  shift
  [[ $(complete_words "$@") == "$wanted" ]] ||
    fail "completing 'halo $*' gives '$(complete_words "$@")', not '$wanted'"
}
expect "convert" conv
expect "pack" data p
expect "--resume" convert --res
expect "--tokenizer" data pack texts.jsonl --tok
expect "bash zsh fish" completion ""
expect "fish" completion f
expect "" convert --run ""
for shell in zsh fish; do
  command -v $shell > /dev/null || continue
  file=$prefix/share/zsh/site-functions/_halo
  [[ $shell == zsh ]] || file=$prefix/share/fish/vendor_completions.d/halo.fish
  $shell -n "$file" || fail "$shell cannot read $file"
done
echo "install: installed to a prefix, runs alone"
