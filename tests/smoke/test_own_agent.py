"""A user's own module, unedited, through every analysis that the README promises for it."""

import numpy as np
import pytest
import torch
from torch import nn

import rl_interp
from rl_interp import sae, saliency
from rl_interp.core.collect import collect
from rl_interp.core.envs import AtariConfig, make_vector
from rl_interp.core.interventions import Zero

CONFIG = AtariConfig(max_frames=400)


class Net(nn.Module):
    """Somebody's actor-critic, which knows nothing of this suite."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(4, 8, 8, stride=8), nn.ELU(), nn.Flatten(), nn.Linear(800, 24), nn.Tanh())
        self.policy = nn.Linear(24, 9)

    def forward(self, frames):
        return self.policy(self.body(frames.float() / 255))


@pytest.fixture(scope="module")
def agent():
    return rl_interp.wrap(Net(), {"conv": ("body.1", "B C H W"), "hidden": ("body.4", "B D")}).eval()


@pytest.fixture(scope="module")
def store(agent, tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "store"
    return collect(agent, CONFIG, "hidden", 600, path, seed=0, num_envs=4, epsilon=0.1)


def test_it_keeps_the_contract(agent):
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 4, 84, 84), np.uint8))
    rl_interp.check_agent(agent, obs)


def test_its_activations_are_collected_and_decomposed(agent, store):
    fitted = sae.fit(store, sae.SAEConfig(latents=64, k=8, epochs=10, batch_size=64))
    rows = np.arange(len(store))
    assert sae.evaluate(fitted, store, rows).fvu < 0.5
    assert len(store.column("ghost_near")) == len(store)


@pytest.mark.parametrize("method", ["perturbation", "gradient", "integrated-gradients"])
def test_its_maps_are_drawn(agent, method):
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 4, 84, 84), np.uint8))
    found = saliency.saliency_map(agent, obs, saliency.Chosen(), method)
    assert found.shape == (1, 84, 84)
    assert np.ptp(found) > 0


def test_it_is_ablated_in_closed_loop(agent):
    env = make_vector(CONFIG, 2)
    free = rl_interp.evaluate(agent, env, 2, seed=0, epsilon=0)
    again = rl_interp.evaluate(agent, env, 2, seed=0, epsilon=0)
    held = rl_interp.evaluate(agent, env, 2, seed=0, epsilon=0, interventions=[Zero("hidden")])
    env.close()
    assert (free.returns == again.returns).all()
    assert len(held.returns) == 2
