#!/usr/bin/env bash
# torch 2.13.0, CPU: giving memory to a tensor of the meta device, the usual way to fill a model that was made without
# any, imports SymPy at the first tensor.
#
# Guess:     torch.empty_like(t, device="cpu") allocates as torch.empty_strided(t.shape, t.stride()) does, at once.
# Behaviour: from a tensor of the meta device it goes through Python references that import SymPy and several hundred
#            modules more, most of a second or longer; so does nn.Module.to_empty, which calls it. From a tensor of the
#            CPU, and by empty_strided with the same shape and strides, nothing is imported.
# Seen:      empty_strided and empty_like of a CPU tensor: SymPy is not there. empty_like of a meta tensor and
#            Linear.to_empty: it is, after 0.5 to 1.0 s.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.3.5
cat > "$work/empty.py" <<'PY'
import sys
import time

import torch
from torch import nn

of_meta, of_cpu = torch.empty(3, 4, device="meta"), torch.empty(3, 4)
ways = {
    "empty_strided": lambda: torch.empty_strided(of_meta.shape, of_meta.stride()),
    "empty_like of a CPU tensor": lambda: torch.empty_like(of_cpu),
    "empty_like of a meta tensor": lambda: torch.empty_like(of_meta, device="cpu"),
    "Linear.to_empty": lambda: nn.Linear(3, 4, device="meta").to_empty(device="cpu"),
}
assert "sympy" not in sys.modules, "importing torch imports it"
before, start = len(sys.modules), time.perf_counter()
ways[sys.argv[1]]()
took, there = time.perf_counter() - start, "sympy" in sys.modules
print(f"{sys.argv[1]}: {took:.2f} s, {len(sys.modules) - before} modules more, SymPy {'' if there else 'not '}there")
assert there == ("meta" in sys.argv[1] or "to_empty" in sys.argv[1])
PY
for way in "empty_strided" "empty_like of a CPU tensor" "empty_like of a meta tensor" "Linear.to_empty"; do
  "$work/venv/bin/python" "$work/empty.py" "$way"
done
