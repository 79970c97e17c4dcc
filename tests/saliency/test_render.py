"""Pictures and videos: what is drawn is where it belongs, and files are whole or absent."""

from dataclasses import replace

import imageio_ffmpeg
import numpy as np
import pytest

from rl_interp.core.errors import UserError
from rl_interp.core.pictures import write_png
from rl_interp.core.video import write_video
from rl_interp.saliency import Frame, Panel, compose
from rl_interp.saliency.render import preference_range

PANEL = Panel(("LEFT", "RIGHT"), "advantage", "perturbation", scale=2.0, preference_range=(0.0, 10.0))


def frame(saliency: np.ndarray, **changes) -> Frame:
    values = {
        "screen": np.zeros((210, 160, 3), np.uint8),
        "saliency": saliency.astype(np.float32),
        "preferences": np.array([2.0, 7.0], np.float32),
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


def test_the_chosen_actions_bar_is_as_long_as_its_value():
    picture = compose(frame(np.zeros((84, 84))), PANEL).astype(int)
    orange = (picture == (255, 176, 59)).all(2)
    longest = orange.sum(1).max()
    other = (picture == (86, 96, 112)).all(2).sum(1)
    assert longest / other[other > 20].min() == pytest.approx(7.0 / 2.0, rel=0.2)


def test_an_action_that_is_ruled_out_has_no_bar_and_leaves_the_others_theirs():
    preferences = np.array([-np.inf, 7.0], np.float32)
    limits = preference_range([preferences, np.array([3.0, -np.inf], np.float32)])
    assert limits == pytest.approx((2.8, 7.2))
    panel = replace(PANEL, preference_range=limits)
    pictures = (
        compose(frame(np.zeros((84, 84)), preferences=np.array([first, 7.0], np.float32)), panel)
        for first in (-np.inf, limits[0])
    )
    bars = [picture[:, 488:766] for picture in pictures]  # the numbers stand beside them
    assert np.array_equal(*bars)


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
