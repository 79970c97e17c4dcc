"""Importance in a run: states at play and their counterfactuals, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl_interp.agents.impala import IMPALA
from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.counterfactuals import editor
from rl_interp.analysis.circuits.importance import _states, importance_run
from rl_interp.analysis.circuits.layers import ImportanceConfig, measure_layer
from rl_interp.analysis.circuits.states import play_states
from rl_interp.analysis.sae import policy
from rl_interp.analysis.sae.policy import metric_of
from rl_interp.circuits.optimal import OptimalConfig
from rl_interp.circuits.replacement import Recorded
from rl_interp.circuits.states import States
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput
from rl_interp.core.collect import collect
from rl_interp.core.envs import AtariConfig, CrafterConfig, MazeConfig, MiniGridConfig, make_labelled
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.errors import HookError, UserError
from rl_interp.core.progress import SILENT
from rl_interp.core.run import Run


class Mouse(Agent):
    """Goes by the mean of four parts of the maze, weighted, of which the last is never looked at."""

    hook_points = {"parts": HookPoint("parts", "B D")}

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.parts, self.policy = nn.Identity(), nn.Linear(4, 5)
        self.policy.weight.data[:, 3] = 0

    def step(self, obs: Tensor, state: tuple = (), first: Tensor | None = None) -> PolicyOutput:
        parts = nn.functional.adaptive_avg_pool2d(obs.float().mean(1) / 255, 2).flatten(1)
        return PolicyOutput(logits=4 * self.policy(self.parts(parts)))


@pytest.fixture
def mouse(tmp_path) -> Loaded:
    return Loaded(Run(tmp_path / "mouse"), 0, Mouse(), MazeConfig(min_side=5, max_side=5), "")


@pytest.fixture
def walker(tmp_path) -> Loaded:
    env = MiniGridConfig("MiniGrid-Unlock-v0")
    torch.manual_seed(0)
    agent = IMPALA(len(env.action_names), env.observation_shape, env.categories, hidden=8, lstm=4).eval()
    return Loaded(Run(tmp_path / "walker"), 0, agent, env, "")


SMALL = ImportanceConfig(
    states=12, episodes=2, kinds=("zero", "mean", "optimal"), optimal=OptimalConfig(updates=20, batch=4)
)


@pytest.mark.full
def test_importance_in_a_run_finds_the_unit_that_is_never_looked_at(mouse):
    result = importance_run(mouse, config=SMALL)
    assert result["hooks"] == ["parts"]
    rows = result["units"]
    assert [row["unit"] for row in rows] == [0, 1, 2, 3]
    assert min(rows, key=lambda row: row["zero"])["unit"] == 3
    assert rows[3]["zero"] < 1e-12 < min(row["zero"] for row in rows[:3])
    assert all(row["optimal"] <= row["zero"] for row in rows)
    assert 0 <= result["kinds"]["zero"]["ratio_of_optimal"] <= 1
    assert set(result["returns"]) == {"agent", "random", "zero", "mean", "optimal"}
    assert set(result["differences"]) == {"random", "zero", "mean", "optimal"}
    assert result["cut"] == "optimal"
    assert result["forwards"] > 3 * 4 * 12
    assert json.dumps(result, allow_nan=False)
    for name in ("table", "plot", "result"):
        assert (mouse.run.outputs / "analyses" / "importance").joinpath(result[name].rsplit("/", 1)[1]).stat().st_size


def test_states_are_those_that_the_agent_comes_to(walker):
    states = play_states(walker, 6, seed=3, change="recoloured")
    assert states.steps is not None
    assert states.episodes is not None
    assert states.counterfactual is not None
    # Played again from its seed, the agent is there, and remembers the same.
    (row,) = [int(torch.nonzero(states.steps > 0)[0])]
    assert torch.equal(states.memory[0][row], states.counterfactual.memory[0][row])
    assert states.memory[0][row].any()
    differs = states.obs[row] != states.counterfactual.obs[row]
    assert differs[1].any()
    assert not differs[[0, 2]].any()  # a colour, and neither object nor state


def test_another_history_is_what_is_remembered_in_another_episode(walker):
    short = replace(walker, env=MiniGridConfig("MiniGrid-Empty-5x5-v0"))  # of at most 100 steps
    states = play_states(short, 18, seed=3, change="history")
    assert states.episodes is not None
    assert states.counterfactual is not None
    assert torch.equal(states.obs, states.counterfactual.obs)
    for own, episode in zip(states.counterfactual.memory[0], states.episodes, strict=True):
        (of,) = torch.nonzero((states.memory[0] == own).all(1))[:1, 0]
        assert states.episodes[of] != episode
    with pytest.raises(UserError, match="the states are of one episode, so there is no other history"):
        play_states(short, 3, seed=3, change="history")


@pytest.mark.parametrize(
    ("config", "how"),
    [(MazeConfig(), "moved"), (MazeConfig(), "removed"), (MiniGridConfig("MiniGrid-DoorKey-6x6-v0"), "moved"),
     (MiniGridConfig("MiniGrid-DoorKey-6x6-v0"), "removed")],
)  # fmt: skip
def test_a_counterfactual_differs_in_one_thing_and_leaves_the_state_as_it_was(config, how):
    env, rng, found = make_labelled(config), np.random.default_rng(0), 0
    edits = editor(env, config, how)
    for seed in range(6):
        obs, _ = env.reset(seed=seed)
        changed = edits.changed(how, rng)
        if changed is not None:
            found += 1
            assert not np.array_equal(obs, changed)
            if isinstance(config, MiniGridConfig):  # kinds of things in view, without and with it
                kinds = [np.bincount(each[0].ravel(), minlength=11)[5:] for each in (obs, changed)]
                assert kinds[0].sum() - kinds[1].sum() == (how == "removed")
        edits.before_step(0)
        after = env.step(0)[0]
        again = make_labelled(config)
        again.reset(seed=seed)
        assert np.array_equal(after, again.step(0)[0])
    assert found


@pytest.mark.full
@pytest.mark.parametrize("how", ["moved", "recoloured"])
def test_in_ms_pacman_a_ghost_is_elsewhere_or_of_another_colour_and_play_goes_on_as_it_would(how):
    config = AtariConfig("ALE/MsPacman-v5")
    env, plain, rng = make_labelled(config), make_labelled(config), np.random.default_rng(0)
    edits = editor(env, config, how)
    env.reset(seed=1)
    plain.reset(seed=1)
    found = 0
    for step in range(160):
        action = int(rng.integers(1, 9))
        edits.before_step(action)
        obs, *_, info = env.step(action)
        assert np.array_equal(obs, plain.step(action)[0])
        if step % 5 == 0 and info["labels"]["controllable"] and (changed := edits.changed(how, rng)) is not None:
            found += 1
            differs = [(new != old).any() for new, old in zip(changed, obs, strict=True)]
            assert sum(differs) >= 2  # ghosts flicker, so not every frame shows each
            assert (changed != obs).mean() < 0.05  # a ghost, and no other thing
    assert found > 5


def test_features_are_weighted_by_episodes_of_which_none_is_collected_or_measured(mouse, tmp_path, monkeypatch):
    weighted = []

    def noting(agent, states, hook):
        weighted.append(states)
        return torch.eye(4, dtype=torch.float64)

    monkeypatch.setattr(policy, "policy_metric", noting)
    monkeypatch.setattr(policy, "STATES", 12)
    wide = replace(mouse, env=MazeConfig(min_side=9, max_side=9))
    metric_of(wide, "parts", 4, seed=0)
    collected = collect(wide.agent, wide.env, "parts", 400, tmp_path / "store", seed=0).column("episode_seed")
    measured = _states(wide, SMALL, SILENT)

    def starts(seeds) -> set[bytes]:
        return {maze.tobytes() for maze in Mazes.draw(wide.env, np.unique(seeds)).observations()}

    own = starts(weighted[0].episodes)
    assert own
    for others in (collected, *(states.episodes for states in measured)):
        assert not own & starts(others)


def test_what_can_not_be_measured_is_refused_in_a_sentence(mouse, walker):
    with pytest.raises(HookError, match="unknown hook point 'part'. Did you mean 'parts'"):
        importance_run(mouse, ["part"])
    with pytest.raises(UserError, match="unknown kind of replacement 'means'. Did you mean 'mean'"):
        importance_run(mouse, config=ImportanceConfig(kinds=("means",)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="'noise' given; units can be cut while the agent plays by"):
        importance_run(mouse, config=ImportanceConfig(cut="noise"))
    with pytest.raises(UserError, match="'history' given, and Mouse has no memory"):
        play_states(mouse, 4, 0, "history")
    with pytest.raises(UserError, match="unknown change for rl_interp/Maze-v0 'recoloured'"):
        play_states(mouse, 4, 0, "recoloured")
    with pytest.raises(UserError, match="states=0 given; it must be at least 1"):
        ImportanceConfig(states=0)
    with pytest.raises(UserError, match="can't be put into a state of one's choice, so it has no counterfactuals"):
        editor(make_labelled(CrafterConfig()), CrafterConfig(), "moved")
    assert not (mouse.run.outputs / "analyses").exists()


def test_more_states_than_memory_holds_are_refused_before_they_are_read(monkeypatch):
    import rl_interp.analysis.circuits.layers as layers

    monkeypatch.setattr(layers, "_LIMIT", 10_000)
    states = States(torch.randint(256, (8, 3, 64, 64), dtype=torch.uint8))
    with pytest.raises(UserError, match=r"8 states given for 'parts', whose values of 4 numbers .* give \d+ at most"):
        measure_layer(
            Mouse(), "parts", states, States(states.obs.repeat(100, 1, 1, 1)), ImportanceConfig(kinds=("zero",))
        )


def test_units_are_counted_along_the_axis_of_features():
    recorded = Recorded("conv", -3, torch.zeros(2, 3, 4, 5))
    assert recorded.units == 3
    assert recorded.by_unit(torch.arange(3.0)).shape == (3, 4, 5)
