import numpy as np
import pytest
from torch import nn

from rl_interp import HookPoint, wrap
from rl_interp.core.collect import collect
from rl_interp.core.envs import AtariConfig, CrafterConfig, MazeConfig, MiniGridConfig, make_labelled
from rl_interp.core.replay import activations, replay, revisit

ENVS = {
    "atari": AtariConfig(max_frames=240),
    "crafter": CrafterConfig(length=40),
    "maze": MazeConfig(patience=1),
    "minigrid": MiniGridConfig("MiniGrid-Unlock-v0"),
}


@pytest.fixture(params=ENVS.values(), ids=ENVS)
def recorded(request, tmp_path):
    """The environment, an agent, and a store of what its layer computed."""
    env = request.param
    net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(env.observation_shape)), len(env.action_names)))
    agent = wrap(net, {"out": HookPoint("1", "B D")}, lambda module, obs: module(obs / 255))
    return env, agent, collect(agent, env, "out", 150, tmp_path / "store", seed=3, num_envs=2, epsilon=0.5)


def test_whole_episodes_give_the_agent_what_it_saw(recorded):
    env, agent, store = recorded
    again = np.concatenate([activations(agent, episode, ["out"])["out"] for episode in replay(env, store)])
    np.testing.assert_allclose(again, store.read(np.arange(store.samples)), atol=1e-5)


def test_a_visited_state_has_the_screen_the_cells_and_the_observation_that_it_had(recorded):
    env, _, store = recorded
    number, chosen = store.column("episode"), np.array([store.samples - 1, 7, 20, 21, 7])
    visits = revisit(env, store, chosen)
    plain, seen = make_labelled(env), []
    for state in visits:
        start = np.flatnonzero(number == state.episode)[0]
        obs, _ = plain.reset(seed=int(store.column("episode_seed")[start]))
        for action in store.column("action")[start : state.sample]:
            obs, *_ = plain.step(int(action))
        np.testing.assert_array_equal(state.obs, obs)
        np.testing.assert_array_equal(state.env.render(), plain.render())
        for name, (classes, _) in plain.cells().items():
            np.testing.assert_array_equal(state.env.cells()[name][0], classes)
        assert (state.step, state.action) == (state.sample - start, store.column("action")[state.sample])
        seen.append(state.sample)
    assert seen == sorted(set(chosen.tolist()))
