#!/bin/bash
# recipe_keys_test.sh HALO: docs/formats/recipe.md lists the keys and defaults that the program has.
set -euo pipefail
cd "$(dirname "$0")/.."
diff <(sed -n '/^```text$/,/^```$/p' docs/formats/recipe.md | sed '1d;$d') <("$1" plan --keys) || {
  echo "docs/formats/recipe.md: put the output of \`halo plan --keys\` between \`\`\`text and \`\`\`"
  exit 1
}
