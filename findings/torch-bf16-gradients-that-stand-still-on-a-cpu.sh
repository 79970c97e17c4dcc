#!/usr/bin/env bash
# torch 2.13.0, CPU: some gradients of bf16 parameters stop growing at a few hundred, others don't.
#
# Guess:     the gradient of a bias or of an embedding's row, summed over a batch, is accumulated in float32 (as sum() of
#            a bf16 tensor is) and rounded once.
# Behaviour: nn.Linear, GroupNorm, RMSNorm, Conv1d and sum() do that. nn.LayerNorm's bias, nn.Embedding's row and
#            index_add_ add one by one in bf16, where 256 + 1 = 256: with a gradient of 1 a row, Embedding and
#            index_add_ end at 256 however large the batch is, LayerNorm at 256 a thread. Nothing warns. A model cast to
#            bf16 for a CPU then trains its norms and embeddings with gradients that shrink as the batch grows.
# Seen:      262,144 rows, 2 threads: Linear 262144, GroupNorm 262144, RMSNorm 262144, LayerNorm 512, Embedding 256,
#            index_add_ 256.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.3.5
cat > "$work/sums.py" <<'PY'
import torch
from torch import nn

torch.set_num_threads(2)
rows, bf16 = 262_144, torch.bfloat16
ones = torch.ones(rows, 8, dtype=bf16)


def bias(module, *shape):
    module = module.to(bf16)
    out = module(torch.randn(rows, 8).to(bf16).reshape(rows, *shape))
    out.backward(torch.ones_like(out))
    return module.bias.grad[0].item()


embedding = nn.Embedding(4, 8).to(bf16)
embedding(torch.zeros(rows, dtype=torch.long)).backward(ones)
sums = {
    "Linear": bias(nn.Linear(8, 8), 8),
    "GroupNorm": bias(nn.GroupNorm(2, 8), 8, 1),
    "LayerNorm": bias(nn.LayerNorm(8), 8),
    "Embedding": embedding.weight.grad[0, 0].item(),
    "index_add_": torch.zeros(1, dtype=bf16).index_add_(0, torch.zeros(rows, dtype=torch.long), ones[:, 0])[0].item(),
    "sum": ones[:, 0].sum().item(),
}
print(torch.__version__, sums)
right = {name for name, total in sums.items() if total == rows}
assert right == {"Linear", "GroupNorm", "sum"}, f"CHANGED: right now are {right}"
assert sums["Embedding"] == sums["index_add_"] == 256 and sums["LayerNorm"] == 512, "CHANGED"
print("as stated")
PY
"$work/venv/bin/python" "$work/sums.py"
