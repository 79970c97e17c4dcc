"""Films of saliency: where they begin, and what they warn of."""

import warnings
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rl_interp.agents.load import Loaded
from rl_interp.analysis.playing import watch
from rl_interp.analysis.saliency_time import through_time
from rl_interp.analysis.saliency_video import film
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput
from rl_interp.core.envs import AtariConfig, MazeConfig, env_config, make_labelled
from rl_interp.core.envs.observed import Observed
from rl_interp.core.errors import UserError
from rl_interp.core.progress import Notice
from rl_interp.core.run import Run
from rl_interp.core.wrap import wrap
from rl_interp.saliency.overlay import MATTERS


class Counting(Agent):
    """Of its two units, the first is above 0 from the fourth step on and the second never; whatever it sees is a reason
    for its first action."""

    hook_points = {"units": HookPoint("units", "B D")}
    preference_kind = "q_values"

    def __init__(self, actions: int):
        super().__init__()
        self.units, self.actions = nn.Identity(), actions

    def initial_state(self, batch):
        return torch.zeros(batch, 1)

    def step(self, obs, state=(), first=None):
        self.units(torch.cat([state - 2, -1 - state], 1))
        q_values = torch.zeros(len(obs), self.actions)
        q_values[:, 0] = obs.float().mean((1, 2, 3))
        return PolicyOutput(state + 1, q_values=q_values)


@pytest.fixture
def loaded(tmp_path) -> Loaded:
    return Loaded(Run(tmp_path / "mouse"), 0, Counting(5), MazeConfig(min_side=5, max_side=5), "")


def test_a_film_of_a_unit_begins_where_it_fires(loaded, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = film(loaded, tmp_path / "film.mp4", "perturbation", "unit:units:0", steps=2, skip=None, seed=1)
        assert (found["first_step"], found["frames"]) == (3, 2)
        later = film(loaded, tmp_path / "film.mp4", "perturbation", "unit:units:0", steps=2, skip=5, seed=1)
    assert later["first_step"] == 5


def test_a_film_of_a_unit_that_never_fires_says_so(loaded, tmp_path):
    with pytest.warns(Notice, match="feature 1 never fires in the episode of seed 1"):
        found = film(loaded, tmp_path / "film.mp4", "perturbation", "unit:units:1", steps=2, skip=None, seed=1)
    assert found["first_step"] == 0


def test_watching_begins_after_a_games_pause_unless_it_is_asked_for(loaded):
    env = AtariConfig(noop_max=0)
    pacman = replace(loaded, agent=Counting(9), env=env)
    first = watch(pacman, make_labelled(env), steps=1, skip=None, seed=0)[0]
    whole = watch(pacman, make_labelled(env), steps=first.step + 1, skip=0, seed=0)
    assert first.step > 30
    assert [moment.controllable for moment in whole] == [False] * first.step + [True]
    moved = np.abs(whole[-2].screen.astype(int) - whole[-3].screen).sum(2) > 0
    assert moved[:170].sum() < 200, "until then the game all but stands still"


def test_an_episode_that_is_too_short_is_refused(loaded):
    with pytest.raises(UserError, match="the episode of seed 1 ends before step 5000; skip fewer steps"):
        watch(loaded, make_labelled(loaded.env), steps=1, skip=5_000, seed=1)


@pytest.mark.full
def test_a_film_of_a_vector_shows_its_inputs_beside_the_environments_own_screen(loaded, tmp_path):
    env = env_config("CartPole-v1")
    net = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0, 0, -1, -1], [0, 0, 1, 1]]))
    cart = replace(loaded, agent=wrap(net, {}, output="q_values", observation="vector"), env=env)
    found = film(cart, tmp_path / "film.mp4", "resample", "advantage", steps=4, skip=None, seed=1)
    assert found["frames"] == 4
    picture = np.asarray(Image.open(found["still"])).astype(int)
    assert (picture[:200, 10] == 255).all(), "the cart's screen is white"
    bars = (picture[460 + 34 :, 690:] == MATTERS).all(2).reshape(-1, 360)
    lengths = [bars[24 * row : 24 * (row + 1)].sum(1).max() for row in range(4)]
    assert max(lengths[:2]) <= 2 < min(lengths[2:]), "it goes by the pole alone"


def test_a_film_of_continuous_actions_has_a_bar_for_each_of_their_numbers(loaded, tmp_path):
    env = env_config("Pendulum-v1")
    agent = wrap(nn.Linear(3, 1), {}, output="mean", observation="vector")
    pendulum = replace(loaded, agent=agent, env=env)
    target = f"q:{env.action_names[0]}"
    assert film(pendulum, tmp_path / "film.mp4", "gradient", target, steps=2, skip=None, seed=1)["frames"] == 2


class Cropping(gymnasium.ObservationWrapper):
    """Shows the lower half of CartPole's screen, as an agent may see it."""

    observed = (200, 0, 400, 600)

    def __init__(self):
        env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(0, 255, (200, 600, 3), np.uint8)

    def observation(self, observation):
        return self.render()[200:]


def test_a_wrapper_that_crops_says_what_is_seen(loaded, monkeypatch, tmp_path):
    monkeypatch.setenv("RL_INTERP_TRUST", str(tmp_path / "trust"))
    env = env_config(f"{__file__}:Cropping")
    moment = watch(replace(loaded, agent=Counting(2), env=env), make_labelled(env), steps=1, skip=2, seed=0)[0]
    assert moment.observed == Observed(200, 0, 400, 600)
    assert (moment.screen[200:] == moment.obs.transpose(1, 2, 0)).all()


def test_a_film_can_be_a_gif_or_a_sheet_with_tracks_under_its_frames(loaded, tmp_path):
    written = {}
    for name in ("film.gif", "sheet.png"):
        found = film(loaded, tmp_path / name, "occlusion", "chosen", 5, 0, 1, tracks=["unit:units:0", "value"])
        picture = Image.open(found["video"])
        written[name] = (tmp_path / name).read_bytes()
        assert np.ptp(np.asarray(Image.open(found["still"]))) > 0
        if name == "film.gif":
            assert (picture.n_frames, picture.size[1]) == (5, (640 + 120) // 2)
        else:
            assert picture.size[1] == 2 * (640 + 120) // 2
    film(loaded, tmp_path / "again.gif", "occlusion", "chosen", 5, 0, 1, tracks=["unit:units:0", "value"])
    assert (tmp_path / "again.gif").read_bytes() == written["film.gif"]
    with pytest.raises(UserError, match=r"film.avi given for a film; its name must end in .mp4, .gif or .png"):
        film(loaded, tmp_path / "film.avi", "occlusion", "chosen", 5, 0, 1)


class Delayed(Agent):
    """Prefers an action by how bright the observation before was."""

    def initial_state(self, batch):
        return torch.zeros(batch, 1)

    def step(self, obs, state=(), first=None):
        logits = torch.zeros(len(obs), 5)
        logits[:, 0] = state[:, 0]
        return PolicyOutput(obs.float().mean((1, 2, 3))[:, None], logits=logits)


def test_through_time_only_the_step_that_is_remembered_matters(loaded, tmp_path):
    found = through_time(replace(loaded, agent=Delayed()), tmp_path / "sheet.png", 4, 3, "occlusion", seed=1)
    assert (found["steps"], found["decision"]) == ([2, 3, 4], 4)
    assert found["shares"] == pytest.approx([0, 1, 0])
    assert Image.open(found["sheet"]).size[0] == 3 * 248
    with pytest.raises(UserError, match="has no memory, so nothing but what it sees now matters"):
        through_time(replace(loaded, agent=wrap(nn.Linear(3, 5), {})), tmp_path / "sheet.png")
    with pytest.raises(UserError, match="step 9000 given, and the episode of seed 1 ends at step"):
        through_time(loaded, tmp_path / "sheet.png", 9000, seed=1)
