"""By default a dictionary is fitted on any layer: on which no decision depends, or where no gradient arrives."""

import pytest

from rl_interp.analysis.sae.runs import config_of
from rl_interp.app import cli
from rl_interp.core.code import TRUST
from rl_interp.core.run import Run

SOURCE = """
import torch
from torch import nn
import rl_interp

class ActorCritic(nn.Module):
    def __init__(self, grad):
        super().__init__()
        self.body, self.policy, self.grad = nn.Linear(4, 8), nn.Linear(8, 2), grad
        self.flat, self.vf, self.value = nn.Flatten(), nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, obs):
        with torch.set_grad_enabled(self.grad and torch.is_grad_enabled()):
            seen = self.flat(obs)
            policy, value = self.policy(self.body(seen)), self.value(self.vf(seen)).squeeze(-1)
            return rl_interp.PolicyOutput(logits=policy, value=value)

def make(grad=True): return rl_interp.wrap(ActorCritic(grad), {"body": ("body", "B D"), "vf": ("vf", "B D")})
def closed(): return make(grad=False)
"""


@pytest.mark.parametrize(
    ("made", "hook", "why"),
    [
        ("make", "vf", "the agent's decisions do not depend on it"),
        ("closed", "body", "the agent's decisions have no gradient with respect to this layer"),
    ],
)
def test_a_layer_without_gradients_is_fitted_for_its_activations_alone(made, hook, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(TRUST, str(tmp_path / "trusted"))
    monkeypatch.setattr("rl_interp.analysis.sae.policy.STATES", 16)
    (tmp_path / "my.py").write_text(SOURCE)
    for command in (
        f"import agent my.py:{made} --env CartPole-v1 --name ac",
        f"collect ac --hook {hook} --samples 200",
        f"sae fit ac --hook {hook} --latents 8 --k 2 --epochs 1 --batch-size 64 --episodes 0 --name fitted",
    ):
        capsys.readouterr()
        assert cli.main([*command.split(), "--json"]) == 0, capsys.readouterr().err
    note = " ".join(capsys.readouterr().err.split())
    assert f"{hook} is fitted for its activations alone, without a policy_weight: {why}" in note
    assert config_of(Run.open(tmp_path / "runs" / "fitted")).policy_weight == 0
    assert cli.main(["sae", "report", "fitted", "--json"]) == 0
