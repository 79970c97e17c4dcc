"""Erasing concepts: against LEACE in its published form, and in an agent of which is known what it goes by."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl_interp.agents.load import Loaded
from rl_interp.analysis.probes import without
from rl_interp.analysis.probes.erasure import WIDEST, Eraser
from rl_interp.analysis.probes.regression import probe
from rl_interp.analysis.probes.without import Settings, play_without
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.envs import MazeConfig, env_config
from rl_interp.core.envs.labelled import Concept
from rl_interp.core.envs.minigrid.config import MiniGridConfig
from rl_interp.core.errors import HookError, UserError
from rl_interp.core.run import Run
from rl_interp.core.wrap import wrap

RIGHT, FORWARD = 1, 2
WALL, GOAL = 2, 8


@pytest.fixture
def data():
    """States that vary along all directions, unequally, a concept that they tell in part, and episodes."""
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((20_000, 12)) @ rng.standard_normal((12, 12)) + 3).astype(np.float32)
    concept = values @ rng.standard_normal(12) + 2 * rng.standard_normal(20_000)
    return values, (concept > np.median(concept)).astype(np.float64), np.arange(20_000) // 100


def test_an_eraser_is_leace(data):
    """`x − W⁻¹ P W (x − mean)`, W the inverse root of the covariance and P onto W Cov(x, z)."""
    values, labels, episodes = data
    about = values.astype(np.float64) - values.mean(0, dtype=np.float64)
    variances, axes = np.linalg.eigh(about.T @ about / len(about))
    root = axes * np.sqrt(variances) @ axes.T
    white = np.linalg.solve(root, about.T @ (labels - labels.mean()) / len(about))
    wanted = values - about @ np.linalg.inv(root) @ np.outer(white, white) @ root / (white @ white)
    found = Eraser.of(values, labels, episodes)(torch.from_numpy(values)).numpy()
    moved = np.abs(wanted - values).max()
    assert np.abs(found - wanted).max() < 0.005 * moved  # of ridge regression


def test_nothing_linear_is_left(data):
    values, labels, episodes = data
    after = Eraser.of(values, labels, episodes)(torch.from_numpy(values)).numpy()
    between = np.corrcoef(after.T, labels)[-1, :-1]
    assert np.abs(np.corrcoef(values.T, labels)[-1, :-1]).max() > 0.1
    assert np.abs(between).max() < 1e-4


def test_a_control_moves_each_state_as_far_and_leaves_the_concept(data):
    values, labels, episodes = data
    x, eraser = torch.from_numpy(values), Eraser.of(values, labels, episodes)
    control = eraser.instead(values, labels[None, np.random.default_rng(1).permutation(len(labels))])
    torch.testing.assert_close((control(x) - x).norm(dim=1), (eraser(x) - x).norm(dim=1), rtol=1e-3, atol=1e-5)
    turns = eraser.instead(values, np.stack([np.roll(labels, 100), np.roll(labels, 200)]))
    torch.testing.assert_close(turns(x)[1::2], turns.alone(3)(x)[1::2])
    torch.testing.assert_close(
        (control(x) - eraser.mean) @ eraser.read, (x - eraser.mean) @ eraser.read, rtol=0, atol=1e-3
    )


def test_states_beyond_what_was_learned_from_are_moved_no_further(data):
    values, labels, episodes = data
    eraser, x = Eraser.of(values, labels, episodes), torch.from_numpy(values)
    far = x.mean(0) + 100 * (x - x.mean(0))
    assert (eraser(far) - far).norm(dim=1).max() <= 1.001 * (eraser(x) - x).norm(dim=1).max()


def test_a_constant_unit_is_left_as_it_is(data):
    values, labels, episodes = data
    values = np.concatenate([values, np.full((len(values), 1), 0.1, np.float32)], 1)
    after = Eraser.of(values, labels, episodes)(torch.from_numpy(values))
    torch.testing.assert_close(after[:, -1], torch.full((len(values),), 0.1))


def test_a_dormant_unit_is_not_made_to_tell_what_was_erased(data):
    """As a unit of a network that fires in one state that is learned from, and in none of the other episodes: moved by
    what is read, it would be all that is read."""
    values, labels, episodes = data
    values = np.concatenate([values, np.zeros((len(values), 1), np.float32)], 1)
    learned = episodes < 100
    values[7, -1] = 0.1
    eraser, kind = Eraser.of(values[learned], labels[learned], episodes[learned]), {"it": Concept("what is erased")}
    after = eraser(torch.from_numpy(values[~learned])).numpy()
    before, left = (
        probe(each, {"it": labels[~learned]}, kind, episodes[~learned])["it"].value
        for each in (values[~learned], after)
    )
    assert before > 0.9
    assert left < 0.6


def test_trees_still_read_what_was_there_in_no_linear_form():
    """A concept that one unit tells, and, turned round where another unit is below 0, a second one too."""
    rng = np.random.default_rng(0)
    values, episodes = rng.standard_normal((4000, 6)).astype(np.float32), np.arange(4000) // 50
    labels = (rng.random(4000) < 0.5).astype(np.float64)
    values[:, 0] = labels
    values[:, 1] = np.where(values[:, 2] > 0, 1, -1) * (2 * labels - 1)
    after = Eraser.of(values, labels, episodes)(torch.from_numpy(values)).numpy()
    kind = {"it": Concept("what is erased")}
    linear, trees = (probe(after, {"it": labels}, kind, episodes, trees=each)["it"].value for each in (False, True))
    assert abs(linear - 0.5) < 0.1
    assert trees > 0.9


def test_what_can_not_be_erased_is_said(data):
    values, labels, episodes = data
    with pytest.raises(UserError, match="nothing in the layer varies with the concept"):
        Eraser.of(values, np.ones(len(values)), episodes)
    with pytest.raises(UserError, match="one episode given"):
        Eraser.of(values, labels, np.zeros(len(values), np.int64))
    with pytest.raises(UserError, match="a layer of one unit given"):
        Eraser.of(values[:, :1], labels, episodes).instead(values[:, :1], labels[None, ::-1])
    with pytest.raises(UserError, match="controls=17 given; at most 16"):
        Settings(controls=17)
    with pytest.raises(UserError, match=r"2,049 features given; .* at most 2,048"):
        Eraser.of(np.zeros((10, WIDEST + 1), np.float32), labels[:10], episodes[:10])


class Turner(Agent):
    """Goes on until a wall is before it, and then turns right, by hidden unit 0; unit 1 says whether the goal is before
    it, and nothing comes of it. From wherever it starts in an empty room, that leads to the goal in the corner."""

    hook_points = {"h": HookPoint("h", "B D"), "seen": HookPoint("seen", "B C H W", "spatial")}
    observation = "symbols"

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.h, self.policy = nn.Identity(), nn.Identity(), nn.Linear(22, 7)
        self.other = torch.randn(147, 20, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.policy.weight.zero_()
            self.policy.bias.copy_(torch.full((7,), -50.0))
            self.policy.weight[RIGHT, 0], self.policy.bias[RIGHT], self.policy.bias[FORWARD] = 100.0, -75.0, 0.0

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        kinds = self.seen(obs)[:, 0]
        hidden = torch.zeros(len(obs), 22)
        hidden[:, 0] = kinds[:, -2, 3] == WALL
        hidden[:, 1] = kinds[:, -2, 3] == GOAL
        hidden[:, 2:] = (obs.float().flatten(1) @ self.other).sin()
        return PolicyOutput(logits=self.policy(self.h(hidden)), value=hidden[:, 0])


@pytest.fixture
def loaded(tmp_path):
    return Loaded(Run(tmp_path / "turner"), 0, Turner(), MiniGridConfig("MiniGrid-Empty-Random-5x5-v0"), "")


SETTINGS = Settings(samples=1500, episodes=20, controls=5, epsilon=0.3)


def test_an_agent_does_without_what_it_only_knows_and_not_without_what_it_goes_by(loaded):
    found = play_without(loaded, "h", ["wall_ahead", "goal_ahead"], SETTINGS)
    wall, goal = (found["by_concept"][name] for name in ("wall_ahead", "goal_ahead"))
    assert found["as_trained"]["value"] > 0.9
    for each in (wall, goal):
        assert each["known"]["value"] > 0.99
        assert abs(each["known_after"]["value"] - 0.5) < 0.2
        assert not each["remains"]
    assert wall["changed_where"]["erased"]["value"] == 1
    assert wall["returns"]["erased"]["value"] < 0.5 * found["as_trained"]["value"]
    assert wall["lost"]["interval"][0] > 0
    assert goal["changed"]["erased"]["value"] == 0
    assert goal["returns"]["erased"]["value"] == found["as_trained"]["value"]
    difference = goal["returns"]["control"]["value"] - goal["returns"]["erased"]["value"]
    assert goal["lost"]["value"] == pytest.approx(difference, abs=0.01)
    with open(found["result"]) as file:
        assert json.load(file)["by_concept"] == found["by_concept"]


def test_all_concepts_that_are_common_enough_are_erased_and_drawn(loaded):
    found = play_without(loaded, "h", (), Settings(samples=1500, episodes=0, controls=2, epsilon=0.3))
    assert {"wall_ahead", "goal_ahead", "x", "direction"} <= set(found["by_concept"])
    assert not {"key_seen", "controllable"} & set(found["by_concept"])
    assert (
        found["as_trained"] is found["by_concept"]["x"]["returns"] is found["by_concept"]["x"]["changed_where"] is None
    )
    with open(found["table"]) as file:
        first = file.read().splitlines()[2]
    assert first.startswith("| wall_ahead | AUROC |")
    with open(found["plot"], "rb") as file:
        assert file.read(4) == b"\x89PNG"


@pytest.mark.parametrize(
    ("hook", "concepts", "samples", "message"),
    [
        ("seen", (), 600, r"'seen' given, which has the axes B C H W; .* without positions"),
        ("h", ("wall_ahed",), 600, r"unknown concept 'wall_ahed'. Did you mean 'wall_ahead'"),
        ("h", (), 4, r"the \d+ samples are of \d episodes in which .*; 8 are needed: give more --samples"),
        ("h", ("key_seen",), 200, r"no concept is there, and is not, often enough in the 200 samples"),
    ],
)
def test_what_can_not_be_asked_is_said(loaded, hook, concepts, samples, message):
    with pytest.raises(UserError, match=message):
        play_without(loaded, hook, concepts, Settings(samples=samples, episodes=0))


def test_agents_that_it_is_not_for_are_refused_before_anything_is_played(monkeypatch, loaded):
    monkeypatch.setattr(without, "collect_store", lambda *args, **named: pytest.fail("it was played"))
    cart = SimpleNamespace(agent=wrap(nn.Linear(4, 2), {"q": ("", "B D")}), env=env_config("CartPole-v1"))
    with pytest.raises(UserError, match=r"CartPole-v1 tells nothing of its states .* with --env\.labels"):
        play_without(cart, "q")  # pyright: ignore[reportArgumentType]
    with pytest.raises(HookError, match="unknown hook point 'hh'"):
        play_without(loaded, "hh")
    moving = SimpleNamespace(run=loaded.run, agent=loaded.agent, env=MazeConfig())
    moving.agent.preference_kind = "mean"
    with pytest.raises(UserError, match="continuous actions; erasing is measured on choices"):
        play_without(moving, "h")  # pyright: ignore[reportArgumentType]
