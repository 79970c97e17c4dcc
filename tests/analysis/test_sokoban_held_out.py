"""What reads a Sokoban agent's plan, or takes parts of it away, is tested on levels that it was not found on, and each
level counts once."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rl_interp.agents.load import Loaded
from rl_interp.analysis.sokoban.channels import find_channels
from rl_interp.analysis.sokoban.play import boards_of, over_levels
from rl_interp.analysis.sokoban.probing import CONTROLS, probe_plans
from rl_interp.analysis.sokoban.reading import CONCEPTS, fitted_on, load_probes, save_probes
from rl_interp.analysis.sokoban.thinking import give_time
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput
from rl_interp.core.envs import SokobanConfig
from rl_interp.core.errors import UserError
from rl_interp.core.run import Run
from rl_interp.core.stats import wilson

LEVELS = 40
"""That the probes are fitted or scored on."""
ENV = SokobanConfig(rows=8, columns=8, boxes=1, observation="symbols", min_steps=12, max_steps=12)


class Onlooker(Agent):
    """Holds the board at `layer.c`, a channel a kind of cell and others that are 0, and walks about. It has no weights
    to shuffle."""

    def __init__(self):
        super().__init__()
        self.begun = set()
        """The boards of which it saw the beginning."""
        self.layer = nn.Identity()
        self.hook_points = {"layer.c": HookPoint("layer", "B C H W", "spatial")}

    def initial_state(self, batch: int) -> torch.Tensor:
        return torch.zeros(batch, 1)

    def step(self, obs, state=(), first=None) -> PolicyOutput:
        self.begun |= {board.tobytes() for board in obs[state[:, 0] == 0].numpy()}
        self.layer(nn.functional.one_hot(obs[:, 0].long(), 20).movedim(-1, 1).float())
        way = (state[:, 0].long() // 3) % 4
        return PolicyOutput(state + 1, logits=nn.functional.one_hot(way, 4).float())


@pytest.fixture
def probed(tmp_path) -> tuple[Loaded, dict[str, Any]]:
    """An agent whose plan has been read, in generated levels from seed 0 on."""
    loaded = Loaded(Run(tmp_path / "onlooker"), 0, Onlooker(), ENV, "a" * 64)
    return loaded, probe_plans(loaded, LEVELS)


def test_an_agent_of_shuffled_weights_is_read_in_the_same_states(probed):
    _, result = probed
    for concept in CONCEPTS:
        for each in result["concepts"][concept]:
            assert each["controls"]["shuffled_weights"] == each["f1"]
            assert each["controls_intervals"]["shuffled_weights"] == each["interval"] is not None
            assert set(each["controls_intervals"]) == set(CONTROLS)


def test_probes_know_the_levels_that_they_were_fitted_on_however_these_are_turned(probed):
    loaded, _ = probed
    boards = boards_of(ENV, LEVELS, 0).boards
    fitted = fitted_on(loaded, boards)
    assert fitted.sum() == round(0.7 * LEVELS)
    assert (fitted_on(loaded, np.rot90(boards, 1, (1, 2))[..., ::-1].copy()) == fitted).all()
    assert not fitted_on(loaded, boards_of(ENV, LEVELS, LEVELS).boards).any()


def test_a_plan_is_scored_on_levels_that_the_probes_were_not_fitted_on(probed):
    loaded, _ = probed
    scored = [give_time(loaded, episodes=LEVELS, thinking=(0,), seed=seed)["thinking"][0] for seed in (0, LEVELS)]
    assert [each["plan_levels"] for each in scored] == [round(0.3 * LEVELS), LEVELS]
    assert all(0 < each["plan_f1_agent"] < 1 for each in scored)


def test_a_plan_has_no_score_where_the_probes_were_fitted_on_all_levels(probed):
    loaded, _ = probed
    save_probes(loaded, load_probes(loaded), boards_of(ENV, LEVELS, 0).boards)
    row = give_time(loaded, episodes=LEVELS, thinking=(0,))["thinking"][0]
    assert (row["plan_levels"], row["plan_f1_agent"], row["plan_f1_box_interval"]) == (0, None, None)


def test_probes_that_do_not_say_what_they_were_fitted_on_are_to_be_fitted_again(probed):
    loaded, _ = probed
    path = save_probes(loaded, load_probes(loaded), boards_of(ENV, LEVELS, 0).boards)
    save_file({name: tensor for name, tensor in load_file(path).items() if "/" in name}, path)
    assert load_probes(loaded)
    with pytest.raises(UserError, match="do not say which levels.*run `rl-interp sokoban probe"):
        give_time(loaded, episodes=4)


def test_channels_are_ablated_on_levels_of_a_set_that_they_were_not_looked_for_on(tmp_path):
    env = replace(SokobanConfig(observation="symbols"), levels="hard", part="all", min_steps=12, max_steps=12)
    agent = Onlooker()
    found = find_channels(Loaded(Run(tmp_path / "onlooker"), 0, agent, env, "a" * 64), episodes=8, played=6, draws=2)
    assert len(agent.begun) == 8 + 6
    assert [each["range"] for each in found["ablations"] if each["ablated"] == "other channels"] == [[0, 0], [0, 0]]


def test_levels_of_a_set_that_are_passed_over_are_none_of_those_that_come_then():
    env = replace(SokobanConfig(observation="symbols"), levels="hard", held_out="", part="all")
    first, then = boards_of(env, 200, 0), boards_of(env, 200, 0, past=200)
    assert not np.isin(then.level, first.level).any()
    assert then.level.tolist() == [*range(200, 332), *range(200, 268)]  # the second time turned
    assert not {board.tobytes() for board in first.boards} & {board.tobytes() for board in then.boards}
    with pytest.raises(UserError, match="has 332 levels, which leaves none beside the first 400"):
        boards_of(env, 1, 0, past=400)


def test_generated_levels_that_are_passed_over_are_those_of_the_first_seeds():
    assert (boards_of(ENV, 3, 5, past=2).boards == boards_of(ENV, 5, 5).boards[2:]).all()


def test_generated_rooms_that_are_the_same_turned_or_mirrored_are_one_level():
    boards = boards_of(replace(ENV, rows=5, columns=5), 60, 0)

    def turned(board):
        return {np.rot90(each, turns).tobytes() for each in (board, board[:, ::-1]) for turns in range(4)}

    same = np.array([[bool(turned(a) & {b.tobytes()}) for b in boards.boards] for a in boards.boards])
    np.testing.assert_array_equal(boards.level[:, None] == boards.level, same)
    assert 1 < len(np.unique(boards.level)) < 60


def test_what_is_played_again_and_again_on_a_level_counts_once():
    rng = np.random.default_rng(0)
    solved = rng.random(30) < 0.5
    once = over_levels(solved[None], np.arange(30))
    assert once == wilson(solved)
    draws = over_levels(np.tile(solved, (10, 1)), np.arange(30))
    turned = over_levels(np.tile(solved, 8)[None], np.tile(np.arange(30), 8))
    for again in (draws, turned):
        assert again.value == once.value
        assert again.interval is not None
        np.testing.assert_allclose(again.interval, once.interval, atol=0.03)
