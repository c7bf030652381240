#!/bin/bash
# golden_test.sh PROGRAM ROOT: the program on the whole tree; 77 (skipped) where there is none.
set -eu
if [[ ! -d $2 ]]; then
  echo "skipped: no golden fixtures at $2"
  exit 77
fi
exec "$1" "$2"
