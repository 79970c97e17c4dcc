"""Pictures and videos: what is drawn is where it belongs, and files are whole or absent."""

from dataclasses import dataclass, replace

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from minigrid.core.world_object import Ball
from torch import nn

from rl_interp import wrap
from rl_interp.core.envs import AtariConfig, MiniGridConfig
from rl_interp.core.envs.minigrid.labelled import MiniGridLabelled
from rl_interp.core.envs.observed import Observed
from rl_interp.core.errors import UserError
from rl_interp.core.pictures import write_png
from rl_interp.core.video import write_video
from rl_interp.saliency import (
    Advantage,
    Bars,
    Beside,
    Frame,
    Panel,
    PolicyChange,
    Tracks,
    compose,
    is_signed,
    saliency_map,
)
from rl_interp.saliency.overlay import AGAINST, FLOOR, FOR, MATTERS, overlay
from rl_interp.saliency.render import advantages, probabilities

PANEL = Panel(("LEFT", "RIGHT"), "advantage", "perturbation", scale=2.0, bars=Bars("advantage", -10.0, 10.0))
BLACK = np.zeros((210, 160, 3), np.uint8)


def frame(saliency: np.ndarray, **changes) -> Frame:
    values = {
        "screen": BLACK,
        "saliency": saliency.astype(np.float32),
        "bars": np.array([-2.0, 7.0], np.float32),
        "action": 1,
        "episode_return": 120.0,
        "step": 3,
    }
    return Frame(**{**values, **changes})


def test_red_speaks_for_and_blue_against_where_the_map_says():
    saliency = np.zeros((84, 84))
    saliency[10:20, 10:20], saliency[60:70, 60:70] = 2.0, -2.0
    picture = compose(frame(saliency), PANEL).astype(int)
    height, width = 640, 488
    above = picture[round(15 / 84 * height), round(15 / 84 * width)]
    below = picture[round(65 / 84 * height), round(65 / 84 * width)]
    elsewhere = picture[round(40 / 84 * height), round(40 / 84 * width)]
    assert above[0] > 150 > 2 * above[2]
    assert below[2] > 150 > 2 * below[0]
    assert elsewhere.max() == 0


def test_a_map_without_a_sign_has_one_colour_and_no_legend_for_against():
    def shows(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
        return bool((np.abs(picture[:200] - 0.65 * np.array(colour) - 0.35 * 70).max(2) < 15).any())  # above the bars

    picture = compose(frame(np.full((84, 84), 2.0)), replace(PANEL, signed=False)).astype(int)
    assert (picture[:, :488] == picture[0, 0]).all()
    assert [shows(picture, colour) for colour in (MATTERS, FOR, AGAINST)] == [True, False, False]
    signed = compose(frame(np.zeros((84, 84))), PANEL).astype(int)
    assert [shows(signed, colour) for colour in (MATTERS, FOR, AGAINST)] == [False, True, True]


@pytest.mark.parametrize(
    ("method", "target", "signed"),
    [
        ("perturbation", Advantage(), True), ("integrated-gradients", Advantage(), True),
        ("gradient", Advantage(), False), ("greydanus", PolicyChange(), False),
    ],
)  # fmt: skip
def test_a_method_says_whether_its_maps_have_a_sign(method, target, signed):
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 1, 20, 20), np.uint8))
    net = nn.Sequential(nn.Flatten(), nn.Linear(400, 8), nn.Tanh(), nn.Linear(8, 3))
    agent = wrap(net, {}, forward=lambda net, obs: net(obs.float() / 255))
    assert is_signed(method, target) is signed
    assert (saliency_map(agent, obs, target, method) < -1e-9).any() == signed


def test_what_is_weaker_than_a_stated_share_of_full_colour_is_not_painted():
    saliency = np.zeros((84, 84))
    saliency[10:20, 10:20], saliency[60:70, 60:70] = (FLOOR - 0.01) * PANEL.scale, (FLOOR + 0.1) * PANEL.scale
    picture = compose(frame(saliency), PANEL)[:, :488].astype(int)
    weak, strong = (picture[round(at / 84 * 640), round(at / 84 * 488)] for at in (15, 65))
    assert weak.max() == 0
    assert strong[0] > 60


def test_the_screen_is_legible_under_full_colour():
    stripes = BLACK.copy()
    stripes[:, ::20] = 255
    picture = overlay(stripes, np.ones((84, 84), np.float32), 1.0, (210, 160)).astype(int)
    assert (picture[:, ::20] - picture[:, 10::20]).max(2).min() > 60


def test_policy_and_value_have_a_colour_each():
    actor, critic = np.zeros((2, 84, 84), np.float32)
    actor[10:20, 10:20], critic[60:70, 60:70] = 2, 5
    picture = compose(frame(actor, critic=critic), replace(PANEL, signed=False, critic_scale=5.0)).astype(int)
    blue, red = (picture[round(at / 84 * 640), round(at / 84 * 488)] for at in (15, 65))
    assert blue[2] > 2 * blue[0]
    assert red[0] > 2 * red[2]


def test_further_methods_are_drawn_beside_the_first():
    here, there = np.zeros((2, 84, 84), np.float32)
    here[10:20, 10:20] = there[60:70, 60:70] = 1
    panel = replace(PANEL, beside=[Beside("gradient", 1.0, False)])
    alone, both = compose(frame(here), PANEL), compose(frame(here, beside=[there]), panel)
    assert (both[:, :488] == alone[:, :488]).all()
    assert (both[:, both.shape[1] - 360 :] == alone[:, 488:]).all()
    at = both[round(65 / 84 * 640), 488 + 6 + round(65 / 84 * 488)].astype(int)
    np.testing.assert_allclose(at, 0.65 * np.array(MATTERS), atol=2)


def test_the_screen_under_a_map_has_little_colour_of_its_own():
    red = np.zeros_like(BLACK)
    red[..., 0] = 255
    picture = overlay(red, np.zeros((84, 84), np.float32), 1.0, (210, 160)).astype(int)
    assert np.ptp(picture, axis=2).max() < 0.3 * 255


def lit(screen: np.ndarray, saliency: np.ndarray, observed: Observed, times: int = 3) -> tuple[float, float]:
    """Where on a screen (row, column, in its pixels) the overlay is brightest."""
    size = (times * screen.shape[0], times * screen.shape[1])
    strength = overlay(screen * 0, saliency, 1.0, size, observed).astype(float).sum(2)
    rows, columns = np.nonzero(strength > 0.8 * strength.max())
    return (rows.mean() + 0.5) / times, (columns.mean() + 0.5) / times


def brightest(picture: np.ndarray) -> np.ndarray:
    """A map that is 1 where an observation `[h, w]` changed most."""
    return (picture == picture.max()).astype(np.float32)


@pytest.mark.parametrize("place", [(3, 5), (100, 80), (207, 158)])
def test_the_map_of_an_atari_screen_lies_where_a_pixel_was_lit(place):
    screen = np.zeros((210, 160), np.uint8)
    screen[place] = 255
    seen = cv2.resize(screen, (84, 84), interpolation=cv2.INTER_AREA)  # as the environment makes observations
    found = lit(BLACK, brightest(seen), AtariConfig().observed(210, 160))
    assert found == pytest.approx((place[0] + 0.5, place[1] + 0.5), abs=210 / 84 / 2 + 0.5)


@dataclass(frozen=True)
class Cropped(AtariConfig):
    """Sees the screen without the score beneath, and without 8 columns at either side."""

    def observed(self, height, width):
        return Observed(0, 8, 172, width - 8)


@pytest.mark.parametrize("place", [(3, 12), (100, 80), (168, 150)])
def test_the_map_of_a_cropped_screen_lies_where_a_pixel_was_lit(place):
    screen = np.zeros((210, 160), np.uint8)
    screen[place] = 255
    seen = cv2.resize(screen[:172, 8:152], (84, 84), interpolation=cv2.INTER_AREA)
    found = lit(BLACK, brightest(seen), Cropped().observed(210, 160))
    assert found == pytest.approx((place[0] + 0.5, place[1] + 0.5), abs=172 / 84 / 2 + 0.5)
    outside = overlay(BLACK + 200, np.ones((84, 84), np.float32), 1.0, (210, 160), Cropped().observed(210, 160))
    assert (np.ptp(outside[172:].astype(int), axis=2) == 0).all(), "no map where the agent does not look"
    assert (np.ptp(outside[:172, 8:152].astype(int), axis=2) > 50).all()


@pytest.mark.parametrize("direction", range(4))
def test_the_map_of_an_egocentric_view_lies_on_the_cell_that_changed(direction):
    env = MiniGridLabelled(MiniGridConfig("MiniGrid-Empty-16x16-v0"))
    before, _ = env.reset(seed=0)
    inner = env.game.env
    inner.agent_pos, inner.agent_dir = np.array([7, 8]), direction
    before, (empty, observed) = env._observe(), env.survey()
    ahead = inner.front_pos + 2 * inner.dir_vec + inner.right_vec  # three cells away, and one to the right
    inner.grid.set(ahead[0], ahead[1], Ball("red"))
    env.game._objects = list(inner.grid.grid)
    env.game._encode(ahead[0] + ahead[1] * inner.width)
    changed = (env._observe() != before).any(0)
    screen, _ = env.survey()
    rows, columns = np.nonzero((screen != empty).any(2))
    assert changed.sum() == 1
    assert lit(screen, changed.astype(np.float32), observed, 1) == pytest.approx((rows.mean(), columns.mean()), abs=2)


def test_a_box_of_an_observation_is_turned_with_it():
    corner = (0.0, 0.75, 0.25, 1.0)  # top right
    for turns in range(4):
        observed = Observed(10, 20, 50, 100, turns)
        saliency = np.zeros((4, 4), np.float32)
        saliency[0, 3] = 1
        rows, columns = np.nonzero(observed.laid(saliency, (60, 120)) == 1)
        left, top, right, bottom = observed.box(*corner)
        assert ((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)).all()


def test_the_chosen_actions_bar_is_as_long_as_its_value():
    picture = compose(frame(np.zeros((84, 84))), PANEL).astype(int)[:, 575:]  # right of the names
    orange = (picture == (255, 176, 59)).all(2)
    longest = orange.sum(1).max()
    other = (picture == (86, 96, 112)).all(2).sum(1)
    assert longest / other[other > 5].min() == pytest.approx(7.0 / 2.0, rel=0.2)


def test_bars_show_advantages_whatever_the_values():
    q_values = np.array([17.0, 18.0, -np.inf, 16.0], np.float32)
    assert advantages(q_values).tolist() == [0.0, 1.0, -np.inf, -1.0]
    bars = Bars.of_advantages([advantages(q_values), advantages(q_values + 100)])
    assert (bars.low, bars.high) == (-1.0, 1.0)
    assert probabilities(np.array([1.0, 1 + np.log(3), -np.inf], np.float32)) == pytest.approx([0.25, 0.75, 0])


def test_an_action_that_is_ruled_out_has_no_bar_and_leaves_the_others_theirs():
    pictures = (compose(frame(np.zeros((84, 84)), bars=np.array([x, 7.0], np.float32)), PANEL) for x in (-np.inf, -3.0))
    ruled_out, drawn = ((picture[:, 488:766] == (86, 96, 112)).all(2).sum() for picture in pictures)
    assert ruled_out == 0 < drawn


def test_pictures_have_even_sides_whatever_the_screen():
    for shape in ((210, 160, 3), (64, 64, 3), (97, 33, 3)):
        picture = compose(frame(np.zeros((8, 8)), screen=np.zeros(shape, np.uint8)), PANEL)
        assert picture.shape[0] % 2 == 0
        assert picture.shape[1] % 2 == 0


def test_a_video_shows_the_frames_it_was_given(tmp_path):
    frames = [np.full((64, 96, 3), 40 * i, np.uint8) for i in range(6)]
    path = write_video(tmp_path / "film.mp4", frames, fps=15)
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    read = [np.frombuffer(data, np.uint8).reshape(64, 96, 3) for data in reader]
    assert (meta["codec"], meta["fps"], meta["size"]) == ("h264", 15, (96, 64))
    assert [round(image.mean() / 40) for image in read] == list(range(6))
    head = path.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat"), "the index stands in front, so that browsers start at once"


def test_a_video_that_cannot_be_whole_is_not_there(tmp_path):
    def broken():
        yield np.zeros((64, 64, 3), np.uint8)
        yield np.zeros((32, 64, 3), np.uint8)

    with pytest.raises(UserError, match="came after ones of"):
        write_video(tmp_path / "film.mp4", broken(), fps=15)
    with pytest.raises(UserError, match="no frames were given"):
        write_video(tmp_path / "film.mp4", [], fps=15)
    with pytest.raises(UserError, match="even width and height"):
        write_video(tmp_path / "film.mp4", [np.zeros((63, 64, 3), np.uint8)], fps=15)
    assert not list(tmp_path.iterdir())


def test_a_picture_is_written_as_it_is(tmp_path):
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    assert (np.asarray(Image.open(write_png(tmp_path / "p.png", picture))) == picture).all()


def test_the_map_of_a_vector_is_not_laid_over_a_screen():
    with pytest.raises(UserError, match=r"a map \(8,\) given, which has no places on a screen"):
        compose(frame(np.zeros(8)), PANEL)


def test_names_of_tracks_end_before_their_plot_and_tell_apart_what_differs_at_the_end():
    names = [f"unit:unconditional.block0.mlp.post:{unit}" for unit in (12, 13)]
    tracks = Tracks(["", *names], np.zeros((2, 3)))
    plain, *named = (tracks.drawn(600, 0)[14 + 46 * row :][:46] for row in range(3))
    differ = [(picture != plain).any((0, 2)).nonzero()[0] for picture in named]
    assert all(columns.max() < 190 for columns in differ)
    assert (named[0] != named[1]).any()
