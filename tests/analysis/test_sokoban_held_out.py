"""What reads a Sokoban agent's plan, or takes parts of it away, is tested on levels that it was not found on."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rl_interp.agents.load import Loaded
from rl_interp.analysis.sokoban.play import boards_of
from rl_interp.analysis.sokoban.probing import CONTROLS, probe_plans
from rl_interp.analysis.sokoban.reading import CONCEPTS, fitted_on, load_probes, save_probes
from rl_interp.analysis.sokoban.thinking import give_time
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput
from rl_interp.core.envs import SokobanConfig
from rl_interp.core.errors import UserError
from rl_interp.core.run import Run

LEVELS = 40
ENV = SokobanConfig(rows=8, columns=8, boxes=1, observation="symbols", min_steps=12, max_steps=12)


class Onlooker(Agent):
    """Holds the board at `layer.c`, a channel a kind of cell, and walks about. It has no weights to shuffle."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()
        self.hook_points = {"layer.c": HookPoint("layer", "B C H W", "spatial")}

    def initial_state(self, batch: int) -> torch.Tensor:
        return torch.zeros(batch, 1)

    def step(self, obs, state=(), first=None) -> PolicyOutput:
        self.layer(nn.functional.one_hot(obs[:, 0].long(), 7).movedim(-1, 1).float())
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
