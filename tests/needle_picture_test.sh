#!/bin/bash
# README's picture is what tools/needle-picture makes of the demo's figures.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/needle-picture docs/results/data/demo-summary.json | cmp - docs/images/needles.svg || {
  echo "docs/images/needles.svg: make it again, \`tools/needle-picture docs/results/data/demo-summary.json\`"
  exit 1
}
