"""Videos that browsers play: H.264 in MP4, yuv420p of BT.709 and tagged so, the index in front."""

import errno
import math
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.errors import UserError
from rl_interp.core.files import atomic_path


def write_video(path: Path | str, frames: Iterable[NDArray[np.uint8]], fps: float) -> Path:
    """Write RGB frames `[H, W, 3]` of uint8, H and W even, to `path` (.mp4), `fps` a second; it appears whole or not at
    all.

    Raises:
        UserError: there is no ffmpeg, or it failed, with its own words; no frames, frames that are no such arrays or
            differ in size, or no positive `fps`.
        RunError: the disk is full.
    """
    path = Path(path)
    check_video(path)
    if not math.isfinite(fps) or fps <= 0:
        raise UserError(f"fps={fps} given for {path}; it must be a positive number of frames a second.")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise UserError(f"no frames were given for {path}, so there is no video to write.")
    _check_frame(first, 0, None)
    with atomic_path(path) as temporary:
        _encode(_checked(chain([first], frames), first.shape), first.shape[:2], fps, temporary, path)
    return path


def check_video(path: Path | str) -> None:
    """Raise a `UserError` unless `path` ends in .mp4 and there is an ffmpeg: better before the frames are made."""
    if Path(path).suffix != ".mp4":
        raise UserError(f"{path} given for a video; its name must end in .mp4.")
    _ffmpeg()


def _ffmpeg() -> str:
    import imageio_ffmpeg

    try:
        found = shutil.which(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        found = None
    if not found:
        raise UserError(
            "no ffmpeg was found to write the video with; reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to one."
        )
    return found


def _checked(frames: Iterable[NDArray[np.uint8]], shape: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
    for number, frame in enumerate(frames):
        _check_frame(frame, number, shape)
        yield np.ascontiguousarray(frame)


def _check_frame(frame: NDArray[np.uint8], number: int, shape: tuple[int, ...] | None) -> None:
    """ffmpeg takes a stream of bytes as it comes: of other frames it would make a film of another length."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        given = f"{frame.dtype} of shape {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise UserError(f"frame {number} is {given}; a video takes RGB frames [H, W, 3] of uint8: convert it first.")
    height, width = frame.shape[:2]
    if height % 2 or width % 2 or not frame.size:
        raise UserError(f"frames of {width}×{height} px given; H.264 needs an even width and height.")
    if shape is not None and frame.shape != shape:
        raise UserError(f"a frame of shape {frame.shape} came after ones of {shape}; all must be equal.")


def _encode(
    frames: Iterator[NDArray[np.uint8]], size: tuple[int, int], fps: float, temporary: Path, path: Path
) -> None:
    """Have ffmpeg write `temporary`; sentences are about `path`, which it will become."""
    process = subprocess.Popen(
        _command(size, fps, temporary),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the suite alone, which ends ffmpeg itself
    )
    assert process.stdin is not None
    assert process.stderr is not None
    with process, ThreadPoolExecutor(1) as reader:  # a pipe that nobody reads would fill up and stop ffmpeg
        said = reader.submit(process.stderr.read)
        try:
            for frame in frames:
                process.stdin.write(frame.data)
        except BrokenPipeError:
            pass  # it has stopped; why is in what it said
        except BaseException:
            process.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            status = process.wait()
    lines = said.result().decode(errors="replace").strip().splitlines()
    if any(os.strerror(errno.ENOSPC) in line for line in lines):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if status or not temporary.is_file():
        why = lines[-1] if lines else "it said nothing"
        raise UserError(
            f"ffmpeg could not write {path} (exit status {status}): {why.rstrip('.')}; mend that, or set "
            "IMAGEIO_FFMPEG_EXE to another ffmpeg, with libx264."
        )


def _command(size: tuple[int, int], fps: float, temporary: Path) -> list[str]:
    height, width = size
    filters = (
        "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int",
        "format=yuv420p",
        "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv",
    )
    return [
        _ffmpeg(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{height}", "-framerate", f"{fps}",
        "-i", "pipe:0",
        # Untagged, a player guesses the matrix from the size: BT.601 below 720 lines, BT.709 from there on. Newer
        # versions of ffmpeg take the tags from the frames, older ones from the options.
        "-vf", ",".join(filters),
        "-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "tv",
        "-c:v", "libx264", "-crf", "20", "-preset", "veryfast", "-movflags", "+faststart",
        # With the protocol, or a name with a colon would be read as one.
        "-f", "mp4", f"file:{temporary.absolute()}",
    ]  # fmt: skip
