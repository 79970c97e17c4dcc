#!/usr/bin/env bash
# captum 0.9.0 (torch 2.13.0): on a network that calls torch.relu, DeepLift is gradient × input and GuidedBackprop the
# plain gradient, bit for bit.
#
# Guess:     a network whose nonlinearities can't be hooked is refused, or at least named in a warning.
# Behaviour: both attach to nn.ReLU modules, find none, and answer all the same; the warnings are those that every call
#            gives. DeepLift's attributions then don't sum to f(x) − f(baseline), which is what it is used for. The same
#            weights with nn.ReLU modules give the right sums.
# Seen:      functional: largest gap of the sum 0.06 to 0.1, GuidedBackprop == Saliency True, DeepLift == InputXGradient
#            True; modules: gap below 1e-6, both False.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check captum==0.9.0 torch==2.13.0 "numpy<2.4"
cat > "$work/attribute.py" <<'PY'
import warnings

import torch
from captum.attr import DeepLift, GuidedBackprop, InputXGradient, Saliency
from torch import nn

warnings.simplefilter("ignore")


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


def look(name, net):
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    deep = DeepLift(net).attribute(x, target=0)
    gap = (deep.sum(1) - (net(x) - net(torch.zeros_like(x)))[:, 0]).abs().max().item()
    guided = torch.equal(GuidedBackprop(net).attribute(x, target=0), Saliency(net).attribute(x, target=0, abs=False))
    times = torch.equal(deep, InputXGradient(net).attribute(x, target=0))
    print(f"{name}: gap {gap:.2g}, GuidedBackprop == Saliency {guided}, DeepLift == InputXGradient {times}")
    return gap, guided, times


torch.manual_seed(0)
functional = Functional()
modules = nn.Sequential(functional.a, nn.ReLU(), functional.b)
gap, guided, times = look("functional", functional)
assert gap > 0.01 and guided and times, "CHANGED"
gap, guided, times = look("modules", modules)
assert gap < 1e-5 and not guided and not times, "CHANGED"
print("as stated")
PY
"$work/venv/bin/python" "$work/attribute.py"
