#!/bin/bash
# wheel_test.sh BUILD/halo: the wheel, installed by pip beside the wheels that it depends on, gives a
# `halo` that runs with nothing of the checkout. The wheels beside it are those of .deps, by links:
# pip would fetch 4 GB.
set -euo pipefail
program=$1
source=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
fail() {
  echo "wheel_test: $1" >&2
  exit 1
}

"$source/packaging/make_wheel.py" "$program" --out . > /dev/null
python3 -m pip install --quiet --no-deps --no-index --disable-pip-version-check \
  --root-user-action=ignore --target site ./*.whl
halo() { env -i PATH="$PATH" HOME="$folder" PYTHONPATH="$folder/site" python3 -m halo_hypenet "$@"; }

if halo --version 2> error.txt; then fail "runs without torch"; fi
grep -q "the wheel torch is not in" error.txt || fail "says without torch: $(cat error.txt)"

for wheel in torch nvidia pyarrow; do
  ln -s "$(readlink -f "$source/.deps/py/$wheel")" site/$wheel
done
[[ $(halo --version) == "$("$program" --version)" ]] || fail "halo --version: $(halo --version)"
cp -r "$source/demo/teacher" teacher
halo inspect teacher --json > installed.json
"$program" inspect "$source/demo/teacher" --json > built.json
[[ $(wc -c < installed.json) -gt 1000 ]] || fail "halo inspect prints too little"

# No library of the distribution but those of every Linux.
ldd site/halo_hypenet/bin/halo > libraries.txt
if grep -E "not found|$source/build|(spdlog|fmt|boost|zstd|onig).* => /(usr|lib)" libraries.txt; then
  fail "a library is missing or not the wheel's"
fi
echo "wheel: installed by pip, runs beside torch"
