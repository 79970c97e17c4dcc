"""Episodes recorded from recipes, changed and played on, on agents whose wants are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_maze import Planted
from torch import nn

from rl_interp.agents.dreamerv3 import default_config
from rl_interp.agents.dreamerv3.agent import DreamerV3
from rl_interp.agents.load import Loaded, load_agent
from rl_interp.analysis.episodes import (
    Part,
    RandomControl,
    Recipe,
    attributions,
    editing,
    effect,
    parse_changes,
    record,
    values,
    values_along,
)
from rl_interp.analysis.episodes.film import _maps
from rl_interp.analysis.imagination import dream
from rl_interp.analysis.playing import watch
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput
from rl_interp.core.envs import MazeConfig, MiniGridConfig, make_labelled
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.text import maze_from_text, maze_text
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import run_with_cache, run_with_hooks
from rl_interp.core.interventions import Clamp, as_hooks
from rl_interp.core.run import Run


class Wanderer(Agent):
    """Draws its steps from a layer of 32 units, of which 4 are read, that mixes the observation and how long it has
    played."""

    hook_points = {"h": HookPoint("h", "B D", head="pi"), "pi": HookPoint("pi", "B D")}

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.h, self.pi = nn.Linear(13, 32), nn.Linear(32, 5)
        self.pi.weight.data[:, 4:] = 0

    def initial_state(self, batch):
        return (torch.zeros(batch, 1),)

    def step(self, obs, state=(), first=None):
        seen = obs.float().flatten(1)[:, :: obs[0].numel() // 11][:, :12] / 255
        h = self.h(torch.cat([seen, state[0]], 1))
        return PolicyOutput((state[0] + 0.1,), logits=self.pi(h), value=h.sum(1))


@pytest.fixture
def loaded(tmp_path) -> Loaded:
    return Loaded(Run(tmp_path / "mouse"), 0, Wanderer(), MazeConfig(min_side=11, max_side=11), "")


def same(one, two) -> bool:
    return one.actions.tolist() == two.actions.tolist() and one.png(one.steps) == two.png(two.steps)


def test_a_recipe_of_a_seed_is_the_episode_that_is_watched(loaded):
    recording = record(loaded, Recipe(seed=4, parts=(Part(9),)))
    watched = watch(loaded, make_labelled(loaded.env), steps=10, skip=0, seed=4)
    assert recording.actions.tolist() == [moment.action for moment in watched[:9]]
    for step in (0, 5, 9):
        np.testing.assert_array_equal(recording.moment(step).obs, watched[step].obs)
        np.testing.assert_array_equal(recording.moment(step).screen, watched[step].screen)
        np.testing.assert_array_equal(recording.moment(step).preferences, watched[step].preferences)


@pytest.mark.full
def test_playing_on_from_a_beginning_is_playing_the_whole(loaded):
    for parts in (
        (Part(6), Part(5, actions=(0, 3, 3, 0, 4)), Part(8)),
        (Part(6), Part(9, ("clamp:h:2=5",))),
        (Part(3),),
    ):
        whole = record(loaded, Recipe(4, parts))
        beginning = record(loaded, Recipe(4, (Part(8),)))
        assert same(record(loaded, Recipe(4, parts), beginning=beginning), whole)
        assert same(record(loaded, Recipe(4, parts), beginning=beginning), whole), "and again, from the same beginning"
    longer = record(loaded, Recipe(4, (Part(12),)), beginning=record(loaded, Recipe(4, (Part(8),))))
    assert same(longer, record(loaded, Recipe(4, (Part(12),))))


def test_two_futures_of_a_moment_draw_the_same_random_numbers(loaded):
    changed = record(loaded, Recipe(4, (Part(6), Part(30, ("scale:h:2=1",)))))
    assert changed.actions.tolist() == record(loaded, Recipe(4, (Part(36),))).actions.tolist()


def test_the_moment_after_the_last_step_is_decided_by_whoever_decided_last(loaded):
    longer = record(loaded, Recipe(4, (Part(5), Part(5, ("clamp:pi:0=9",)))))
    plain = record(loaded, Recipe(4, (Part(5),)), beginning=longer)
    assert plain.moment(5).preferences[0] != 9
    assert longer.moment(5).preferences[0] == 9


def test_an_episode_begins_in_the_maze_that_is_given(loaded):
    maze = Mazes.draw(loaded.env, [9]).edit(cheese=(-1, -1))
    recording = record(loaded, Recipe(4, (Part(2),), maze_text(maze)))
    np.testing.assert_array_equal(recording.moment(0).obs, maze.observations()[0])
    forked = record(loaded, Recipe(4, (Part(1), Part(1, actions=(0,))), maze_text(maze)), beginning=recording)
    np.testing.assert_array_equal(forked.moment(1).obs, recording.moment(1).obs)
    np.testing.assert_array_equal(maze_from_text(maze_text(maze)).walls, maze.walls)


@pytest.mark.parametrize(
    "text", ["", "25.1.1", "4.0.0.0.0.AA", "25.0.0.-1.-1." + "A" * 105, "25.99.0.0.0." + "A" * 106]
)
def test_what_is_no_maze_is_refused_in_a_sentence(text):
    with pytest.raises(UserError, match=r"\.$"):
        maze_from_text(text)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("clamp:h:2", "it has the form"),
        ("ablate:h:2=1", "it has the form"),
        ("clamp:nowhere:2=1", "unknown hook point"),
        ("clamp:h:f2=1", "without a dictionary"),
        ("clamp:h:32=1", "units 0 to 31"),
        ("cheese:h=x", "it has the form"),
    ],
)
def test_a_change_that_can_not_be_made_is_refused_in_a_sentence(loaded, change, sentence):
    with pytest.raises(UserError, match=sentence):
        record(loaded, Recipe(4, (Part(2, (change,)),)))


def test_changes_do_what_they_say(loaded):
    seen = []
    obs, state = torch.zeros(1, 3, 64, 64), loaded.agent.initial_state(1)
    for text in ("clamp:h:1=7", "ablate:h:1", "scale:h:1=3", "add:h:1=2"):
        (change,) = parse_changes([text], loaded)
        run_with_hooks(loaded.agent, obs, state, hooks={"h": [change, lambda value, site: seen.append(value)]})
    with torch.no_grad():
        own = loaded.agent.h(torch.zeros(1, 13))[0]
    for value, want in zip(seen, (7, 0, 3 * own[1], own[1] + 2), strict=True):
        assert value[0, :4].tolist() == pytest.approx([float(each) for each in (own[0], want, own[2], own[3])])


def test_a_patch_of_a_memory_puts_in_what_it_held_at_each_tick():
    sokoban = load_agent(Path(__file__).parents[2] / "runs" / "impala-sokoban-7x7", device="cpu")
    recording = record(sokoban, Recipe(3, (Part(3),)))

    def held(step, *changes):
        moment, hooks = recording.moment(step), as_hooks(parse_changes(changes, sokoban, seed=3))
        obs, names = torch.from_numpy(moment.obs[None]), ["layer2.c"]
        return run_with_cache(sokoban.agent, obs, moment.state, names=names, hooks=hooks)[1]["layer2.c"]

    torch.testing.assert_close(held(2, "patch:layer2.c=1"), held(1))
    torch.testing.assert_close(held(2, "patch:layer2.c:4=1")[:, :, :, 4], held(1)[:, :, :, 4])


def test_random_controls_move_each_position_as_far_as_the_change_and_elsewhere(loaded):
    clamp = Clamp("conv", units=[1], value=4.0)
    value = torch.randn(3, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    site = type("Site", (), {"point": HookPoint("conv", "B C H W", "spatial"), "name": "conv"})
    moves = RandomControl(clamp, seeds=(1, 2, 3))(value, site) - value
    torch.testing.assert_close(moves.norm(dim=1), (clamp(value, site) - value).norm(dim=1))
    directions = moves / moves.norm(dim=1, keepdim=True)
    torch.testing.assert_close(directions, directions[:, :, :1, :1].expand_as(directions))
    assert (directions[0, :, 0, 0] @ directions[1, :, 0, 0]).abs() < 0.99


def test_an_effect_is_told_from_its_controls(loaded):
    moment = record(loaded, Recipe(4, (Part(3),))).moment(2)
    read, unread = (effect(loaded, moment, parse_changes([f"add:h:{unit}=9"], loaded)) for unit in (2, 20))
    before, after = (torch.from_numpy(each.preferences[0]).softmax(0) for each in (read.before, read.after))
    assert read.size == pytest.approx(float((after - before).clamp(min=0).sum()), abs=1e-6)
    assert len(read.control_sizes) == 20
    assert (read.within_controls, unread.within_controls, unread.size) == (False, True, 0)


class Choosy(Wanderer):
    """The same by Q-values, and never goes up."""

    preference_kind = "q_values"

    def step(self, obs, state=(), first=None):
        out = super().step(obs, state, first)
        q_values = out.logits.masked_fill(torch.arange(5) == 0, -torch.inf)
        return PolicyOutput(out.state, q_values=q_values)


def test_an_effect_on_q_values_leaves_out_what_is_ruled_out(loaded):
    choosy = replace(loaded, agent=Choosy())
    moment = record(choosy, Recipe(4, (Part(3),))).moment(2)
    found = effect(choosy, moment, parse_changes(["add:h:2=9"], choosy))
    change = found.after.preferences[0, 1:] - found.before.preferences[0, 1:]
    assert found.size == pytest.approx(np.abs(change - change.mean()).max(), rel=1e-5)
    assert np.isfinite(found.control_sizes).all()


def test_layers_hold_what_the_agent_computed_then(loaded):
    recording = record(loaded, Recipe(4, (Part(5),)))
    moments = [recording.moment(step) for step in range(5)]
    held = values(loaded, moments, "pi")
    np.testing.assert_allclose(held[:, 0], [moment.preferences for moment in moments], rtol=1e-5, atol=1e-6)


def test_what_a_layer_held_along_an_episode_is_what_the_agent_decided_by(loaded):
    changed = ("clamp:h:2=5", "patch:h:3=2")
    parts = (Part(3), Part(4, changed), Part(2, changed, control=1), Part(2, actions=(0, 3)), Part(2, ("add:pi:1=2",)))
    recording = record(loaded, Recipe(4, parts))
    held = np.concatenate([*values_along(recording, "pi")])
    np.testing.assert_allclose(held[:, 0], [moment.preferences for moment in recording.light()], rtol=1e-5, atol=1e-6)
    beginning = record(loaded, Recipe(4, (Part(3),)), beginning=recording)
    assert np.concatenate([*values_along(beginning, "h")]).shape == (4, 1, 32)


def test_what_is_laid_over_a_film_is_what_the_agent_had_then(loaded):
    recipe = Recipe(1, (Part(2), Part(2, ("ablate:detect:3",))))
    laid = _maps(record(replace(loaded, agent=Planted()), recipe), "unit:detect:3", None)
    assert laid.max((1, 2)).tolist() == [1, 1, 0, 0, 0]


def test_attributions_at_a_linear_head_are_what_the_advantage_loses(loaded):
    moment = record(loaded, Recipe(4, (Part(3),))).moment(2)
    found = attributions(loaded, moment, "h")
    chosen = moment.preferences.argmax()
    for unit in range(4):
        without = effect(loaded, moment, parse_changes([f"ablate:h:{unit}"], loaded)).after.preferences[0]
        lost = [p[chosen] - p.mean() for p in (moment.preferences, without)]
        assert found[unit] == pytest.approx(lost[0] - lost[1], abs=1e-5)


def test_attributions_under_a_change_are_of_what_is_there_with_it(loaded):
    moment = record(loaded, Recipe(4, (Part(3),))).moment(2)
    plain = attributions(loaded, moment, "h")
    unit = int(np.abs(plain).argmax())
    changed = attributions(loaded, moment, "h", changes=parse_changes([f"ablate:h:{unit}"], loaded))
    assert plain[unit] != 0 == changed[unit]


def test_an_agent_without_a_memory_is_recorded_too(loaded):
    assert record(replace(loaded, agent=Planted()), Recipe(1, (Part(400),))).ended


def test_a_dream_follows_from_its_moment_its_actions_and_its_seed(loaded, tmp_path):
    config = default_config("MiniGrid-Empty-5x5-v0", size="debug", precision="fp32")
    dreamer = Loaded(Run(tmp_path / "dreamer"), 0, DreamerV3(config).eval(), config.env.scored, "")
    torch.manual_seed(0)
    for weight in dreamer.agent.world_model.reward.parameters():  # which begins at 0
        weight.data.normal_()
    moment = record(dreamer, Recipe(1, (Part(2),))).moment(2)
    first, again, other = (dream(dreamer, moment, actions) for actions in ([2, 1, 2], [2, 1, 2], [0, 0, 0]))
    assert len(first.pictures) == len(first.rewards) == len(first.goes_on) == 3
    np.testing.assert_array_equal(first.rewards, again.rewards)
    assert (first.rewards != other.rewards).any()
    with pytest.raises(UserError, match="without a world model"):
        dream(loaded, moment, [0])


def test_an_edited_state_is_played_on_and_comes_out_the_same_from_any_beginning(tmp_path):
    loaded = Loaded(Run(tmp_path / "grid"), 0, Wanderer(), MiniGridConfig(), "")
    turned = Recipe(3, (Part(4), Part(6, edits=("face:down",)), Part(3)))
    whole, plain = record(loaded, turned), record(loaded, Recipe(3, (Part(13),)))
    assert whole.moment(4).labels["direction"] == 1
    assert (whole.moment(3).obs == plain.moment(3).obs).all()
    assert (whole.moment(4).obs != plain.moment(4).obs).any()
    for beginning in (plain, whole, record(loaded, Recipe(3, (Part(4),)))):
        assert same(record(loaded, turned, beginning=beginning), whole)
        again = record(loaded, Recipe(3, (Part(4),)), beginning=beginning)
        assert (again.moment(4).obs == plain.moment(4).obs).all(), "a state is not edited before its edit"
        otherwise = Recipe(3, (Part(4), Part(6, edits=("face:up",))))
        assert record(loaded, otherwise, beginning=beginning).moment(4).labels["direction"] == 3
    assert editing(whole, 4).things[0].name == "agent"


def test_an_edit_of_what_can_not_be_edited_is_said(loaded):
    with pytest.raises(UserError, match="can't be edited"):
        record(loaded, Recipe(4, (Part(3), Part(2, edits=("face:left",)))))
