"""Collection on the real game: every row can be played again, and says what the agent computed there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rl_interp.agents.dqn import DQN
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput
from rl_interp.core.collect import collect
from rl_interp.core.envs import AtariConfig, MiniGridConfig, concepts_sha256, env_config, make_labelled
from rl_interp.core.errors import HookError
from rl_interp.core.hooks import assert_unhooked, run_with_cache

CONFIG = AtariConfig(max_frames=600)


@pytest.fixture(scope="module")
def agent():
    torch.manual_seed(0)
    return DQN(9).eval()


@pytest.fixture(scope="module")
def store(agent, tmp_path_factory):
    path = tmp_path_factory.mktemp("collected") / "store"
    return collect(agent, CONFIG, "fc.post", 500, path, seed=11, num_envs=3, epsilon=0.3, provenance={"run": "x"})


def test_there_are_as_many_rows_as_asked_for_each_episode_from_its_beginning_in_order(store):
    episode, step = store.column("episode"), store.column("step")
    assert len(store) == 500
    for e in np.unique(episode):
        steps = step[episode == e]
        assert (steps == np.arange(len(steps))).all()
        assert (np.diff(np.flatnonzero(episode == e)) == 1).all()
    seeds = store.column("episode_seed")
    assert len({*zip(episode.tolist(), seeds.tolist(), strict=True)}) == len(np.unique(episode))
    assert len(np.unique(seeds)) == len(np.unique(episode))


@torch.no_grad()
def test_playing_an_episode_again_gives_its_labels_rewards_and_activations(store, agent):
    rows = np.flatnonzero(store.column("episode") == 1)
    env = make_labelled(CONFIG)
    obs, info = env.reset(seed=int(store.column("episode_seed")[rows[0]]))
    columns = {name: store.column(name)[rows] for name in ("action", "reward", "value", "lives", *info["labels"])}
    values = store.read(rows)
    for i in range(len(rows)):
        assert all(columns[name][i] == value for name, value in info["labels"].items())
        assert columns["lives"][i] == info["lives"]
        out, cache = run_with_cache(agent, torch.from_numpy(obs[None]), names=["fc.post"])
        np.testing.assert_allclose(values[i], cache["fc.post"][0].numpy(), atol=1e-5)
        assert columns["value"][i] == pytest.approx(out.q_values.max().item(), abs=1e-5)
        obs, reward, terminated, truncated, info = env.step(int(columns["action"][i]))
        assert columns["reward"][i] == reward
    assert terminated or truncated, "the second to end was played before the number was reached"


def test_labels_that_look_ahead_are_those_of_whole_episodes_in_rows_that_are_cut(agent, tmp_path, monkeypatch):
    """`steps_left` needs an episode's end, which is played though it is not stored."""
    config = MiniGridConfig("MiniGrid-Empty-5x5-v0")

    def steps_left(self, columns):
        return {"steps_left": len(columns["action"]) - 1 - np.arange(len(columns["action"]))}

    monkeypatch.setattr("rl_interp.core.envs.games.LabelledGame.hindsight", steps_left)
    few, many = (
        collect(Remembering(), config, "count", samples, tmp_path / str(samples), seed=0, num_envs=3)
        for samples in (90, 600)
    )
    assert (len(few), len(many)) == (90, 600)
    found = {
        len(each): {
            (seed, step): left
            for seed, step, left in zip(
                *(each.column(name).tolist() for name in ("episode_seed", "step", "steps_left")), strict=True
            )
        }
        for each in (few, many)
    }
    assert found[90].items() <= found[600].items()
    last = [few.column("steps_left")[few.column("episode") == e].min() for e in np.unique(few.column("episode"))]
    assert max(last) > 0, "an episode is cut"


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_a_few_rows_are_stored_too(tmp_path, samples):
    config = MiniGridConfig("MiniGrid-Empty-5x5-v0")
    store = collect(Remembering(), config, "count", samples, tmp_path / "store", seed=0, num_envs=3)
    assert len(store) == samples
    assert len(np.unique(store.column("episode"))) == min(samples, 3)


def test_without_labels_no_episode_is_said_to_be_played_to_its_end(tmp_path):
    said, agent = [], DQN(2, (4,)).eval()

    def hear(done, note=""):
        said.append(note)

    collect(agent, env_config("CartPole-v1"), "fc.post", 50, tmp_path / "s", seed=0, num_envs=3, progress=hear)
    assert set(said) == {""}


def test_most_actions_are_greedy_and_some_are_not(store, agent):
    with torch.no_grad():
        greedy = agent.q(torch.from_numpy(store.read(np.arange(len(store))))).argmax(1).numpy()
    share = (greedy == store.column("action")).mean()
    assert 0.6 < share < 0.85  # epsilon 0.3 leaves 0.7 + 0.3 / 9


def test_the_store_says_where_it_comes_from(store):
    known = store.manifest["provenance"]
    assert (known["run"], known["seed"], known["epsilon"]) == ("x", 11, 0.3)
    assert known["env"]["sticky_actions"] == 0.25


class Remembering(Agent):
    """Its state is how many steps of the episode it has seen."""

    hook_points = {"count": HookPoint("count", "B D")}

    def __init__(self):
        super().__init__()
        self.count = torch.nn.Identity()

    def initial_state(self, batch):
        return (torch.zeros(batch, 1),)

    def step(self, obs, state, first=None):
        (count,) = state
        count = self.count(torch.where(first[:, None], 0, count) + 1)
        return PolicyOutput((count,), logits=torch.zeros(len(obs), 7))


def test_an_agent_remembers_its_episode_and_no_other(tmp_path):
    config = MiniGridConfig("MiniGrid-Empty-5x5-v0")
    store = collect(Remembering(), config, "count", 250, tmp_path / "store", seed=0, num_envs=2)
    assert len(np.unique(store.column("episode"))) > 2
    np.testing.assert_array_equal(store.read(np.arange(len(store)))[:, 0], store.column("step") + 1)


def test_an_unknown_hook_point_is_refused_and_no_hook_is_left(agent, tmp_path):
    with pytest.raises(HookError, match=r"unknown hook point.*'fc.p'"):
        collect(agent, CONFIG, "fc.p", 10, tmp_path / "store", seed=0)
    assert not list(tmp_path.iterdir())
    assert_unhooked(agent)


def test_an_episode_that_is_cut_off_before_anything_happened_tells_of_no_death(store):
    """All of these are: in so few frames no ghost comes."""
    assert not store.column("dying").any()
    assert not store.column("dies_soon").any()
    assert 0 < store.column("controllable").mean() < 1


def test_the_store_says_what_its_labels_meant(store):
    concepts = make_labelled(CONFIG).concepts
    assert store.manifest["provenance"]["concepts_sha256"] == concepts_sha256(concepts)
    other = {name: replace(concept, meaning=f"not {concept.meaning}") for name, concept in concepts.items()}
    assert concepts_sha256(other) != concepts_sha256(concepts)
    assert concepts_sha256({}) is None
