"""Films: what goes in comes out, and what can't be written is refused in a sentence."""

import os
import re
import resource
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from rl_interp.core.errors import RunError, UserError
from rl_interp.core.video import write_video

FRAMES = np.random.default_rng(0).integers(0, 256, (10, 32, 48, 3), np.uint8)


def ffmpeg(*arguments):
    return subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *arguments], capture_output=True, check=False)


def planes(path, height, width):
    """`[N, H, W]` of Y, Cb and Cr, as decoded."""
    raw = np.frombuffer(ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "yuv444p", "pipe:1").stdout, np.uint8)
    return raw.reshape(-1, 3, height, width).swapaxes(0, 1).astype(float)


def test_every_frame_is_there_at_its_time(tmp_path):
    path = write_video(tmp_path / "film.mp4", FRAMES, 12.5)
    assert planes(path, 32, 48).shape == (3, 10, 32, 48)
    assert b"12.50 fps" in ffmpeg("-i", path).stderr
    assert os.listdir(tmp_path) == ["film.mp4"]


def test_the_film_is_tagged_with_the_matrix_that_it_was_made_with(tmp_path):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [250, 200, 30], [128, 128, 128], [0, 0, 0]], np.uint8)
    frames = [np.broadcast_to(colour, (64, 64, 3)) for colour in colours]
    path = write_video(tmp_path / "film.mp4", frames, 5)
    told = ffmpeg("-i", path).stderr.decode()
    assert re.search(r"Video: h264 .*yuv420p\(tv, bt709[,)]", told), told
    y, cb, cr = (plane[:, 32, 32] for plane in planes(path, 64, 64))
    # ITU-R BT.709-6, §3 and §4, backwards: from 8 bits of limited range to RGB.
    y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    red, blue = y + 1.5748 * cr, y + 1.8556 * cb
    green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
    assert 255 * np.stack([red, green, blue], 1) == pytest.approx(colours.astype(float), abs=3)


@pytest.mark.parametrize("name", ["q:LEFT.mp4", "-y.mp4", "50%d.mp4", "a b.mp4"])
def test_a_name_is_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(name, FRAMES, 5)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).stat().st_size > 1000


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        (FRAMES.astype(float), "frame 0 is float64 of shape"),
        (FRAMES / np.float32(255), "frame 0 is float32"),
        (FRAMES[..., 0], r"uint8 of shape \(32, 48\); a video takes RGB frames"),
        (np.concatenate([FRAMES, FRAMES[..., :1]], -1), r"uint8 of shape \(32, 48, 4\)"),
        (FRAMES[:, :31], "48×31 px given; H.264 needs an even"),
        (FRAMES[:, :0], "48×0 px given"),
        ([*FRAMES, FRAMES[0].astype(int)], "frame 10 is int64"),
        ([*FRAMES, FRAMES[0, :16]], r"\(16, 48, 3\) came after ones of \(32, 48, 3\)"),
        ([[[1, 2, 3]]], "frame 0 is list"),
        ([], "no frames were given"),
    ],
)
def test_frames_that_would_make_another_film_are_refused(tmp_path, frames, sentence):
    with pytest.raises(UserError, match=sentence):
        write_video(tmp_path / "film.mp4", frames, 5)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("fps", [0, -5, float("nan"), float("inf")])
def test_a_pace_that_is_none_is_refused(tmp_path, fps):
    with pytest.raises(UserError, match="positive number of frames a second"):
        write_video(tmp_path / "film.mp4", FRAMES, fps)


def test_what_ffmpeg_said_reaches_the_user(tmp_path, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho \"Unknown encoder 'libx264'\" >&2\nexit 8\n")
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    with pytest.raises(UserError, match=r"film.mp4 \(exit status 8\): Unknown encoder 'libx264'; mend that"):
        write_video(tmp_path / "film.mp4", FRAMES, 5)
    assert os.listdir(tmp_path) == ["ffmpeg"]


def test_an_error_among_the_frames_passes_and_leaves_nothing(tmp_path):
    def frames():
        yield from FRAMES
        raise KeyError("the agent stopped")

    with pytest.raises(KeyError):
        write_video(tmp_path / "film.mp4", frames(), 5)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.999])
def test_a_film_that_may_not_grow_to_its_size_does_not_appear(tmp_path, long, share):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * len(long)), limit[1]))
    try:
        with pytest.raises(UserError, match="ffmpeg could not write .*film.mp4"):
            write_video(tmp_path / "film.mp4", [*FRAMES] * 20, 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_on_a_full_disk_the_sentence_says_so_and_nothing_is_left(tmp_path, long, share):
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(share * len(long))}", "tmpfs", tmp_path]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(RunError, match="the disk is full: .*film.mp4"):
            write_video(tmp_path / "film.mp4", [*FRAMES] * 20, 5)
        assert not os.listdir(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A film's bytes, of which full disks hold a share."""
    return write_video(tmp_path_factory.mktemp("whole") / "film.mp4", [*FRAMES] * 20, 5).read_bytes()
