#!/bin/bash
# A conversion on the GPUs of several machines under torchrun (of any PyTorch 2: it starts the
# processes and nothing else). Run this on every machine, with the same HEAD, NODES and folders:
#   HEAD=gpu01 NODES=2 GPUS=8 configs/launch/torchrun.sh RECIPE.toml runs/big
# torchrun starts the ranks anew when one is lost; they go on from the newest checkpoint.
set -euo pipefail
recipe=$1 run=$2
exec torchrun --nnodes "${NODES:-1}" --nproc-per-node "${GPUS:-8}" --max-restarts "${RESTARTS:-3}" \
  --rdzv-backend c10d --rdzv-endpoint "${HEAD:-localhost}:29400" --rdzv-id "$(basename "$run")" \
  --no-python -- "${HALO:-halo}" convert "$recipe" --run "$run" --set run.shard=optimizer
