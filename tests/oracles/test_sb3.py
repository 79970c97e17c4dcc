"""Models of Stable-Baselines3, read without it, say what they say in it: recorded ones, and, where it is installed (the
extra `bench`), ones that are trained here."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rl_interp.agents.pretrained import sb3
from rl_interp.agents.pretrained.runs import policy_of
from rl_interp.agents.pretrained.vec_normalize import normalised, read_statistics
from rl_interp.core.check_agent import check_agent

sys.path.insert(0, str(Path(__file__).parent / "published_sb3"))
import record


def agree(said: record.Said) -> None:
    """That the policy that is read says what the model said, of every observation."""
    config, weights = sb3.read(said.model, said.env)
    if said.statistics:
        config, weights = normalised(config, weights, read_statistics(said.statistics), said.statistics)
    agent = policy_of(config, weights, said.model)
    obs = torch.from_numpy(said.obs)
    check_agent(agent, obs[0])
    with torch.no_grad():
        out = agent.unroll(obs, (), torch.from_numpy(said.first))
    if said.std is not None:
        chosen, preferences = out.mean.clamp(-2, 2), out.mean  # Pendulum's bounds
        close(out.std, said.std)
        close(chosen, said.actions)
    else:
        preferences = out.q_values if out.logits is None else out.logits.log_softmax(-1)
        np.testing.assert_array_equal(preferences.argmax(-1), said.actions)
    close(preferences, said.preferences)
    assert (out.value is None) == (said.value is None)
    if said.value is not None:
        close(out.value, said.value)
    assert preferences.flatten(0, 1).std(0).max() > 1e-4, "it says the same of all observations"


def close(got: torch.Tensor, want: np.ndarray) -> None:
    torch.testing.assert_close(got, torch.from_numpy(want), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", record.RECIPES)
def test_a_recorded_model_is_read_as_it_was(name):
    agree(record.load(name))


@pytest.mark.full
@pytest.mark.parametrize("name", [*record.RECIPES, *record.OTHERS])
def test_a_model_that_is_trained_now_is_read_as_it_is(name, tmp_path):
    pytest.importorskip("stable_baselines3", reason="the extra `bench` is not installed")
    pytest.importorskip("sb3_contrib", reason="the extra `bench` is not installed")
    agree(record.train(name, tmp_path))
