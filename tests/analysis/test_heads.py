"""Heads cut one by one from a shared beginning are heads cut one by one."""

import pytest
import torch
from torch import nn

from rl_interp.agents.transformer import Architecture, Transformer
from rl_interp.analysis.circuits.heads import without_each_head
from rl_interp.core.hooks import run_with_hooks
from rl_interp.core.interventions import Zero


@pytest.mark.parametrize("changes", [{}, dict(kv_heads=2, positions="rotary", norm="rms", mlp="gated", bias=False)])
def test_each_head_is_cut_as_by_a_hook(changes):
    torch.manual_seed(0)
    shape = dict(vocabulary=11, context=9, layers=3, width=12, heads=2, hidden=16)
    agent = Transformer(Architecture(**{**shape, **changes})).eval()
    for weight in agent.parameters():
        nn.init.normal_(weight, 0.0 if weight.dim() > 1 else 0.5, 0.4)
    obs = torch.randint(11, (5, 9))
    obs[:, 7:], obs[0, 4:] = -1, -1
    found = without_each_head(agent, obs, lambda logits: logits[:, 3])
    for block in range(3):
        for head in range(2):
            at = f"block{block}.z"
            want = run_with_hooks(agent, obs, hooks={at: Zero(at, units=[head])}).logits[:, 3]
            assert torch.allclose(found[block, head], want, atol=1e-4)
