"""Videos that browsers play: H.264 in MP4, yuv420p, the index in front."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.errors import UserError
from rl_interp.core.files import atomic_path


def write_video(path: Path | str, frames: Iterable[NDArray[np.uint8]], fps: int) -> Path:
    """Write RGB frames `[H, W, 3]`, H and W even, to `path` (.mp4), `fps` a second; it appears whole or not at all.

    Raises:
        UserError: there is no ffmpeg, or it failed; no frames, or frames of different or odd sizes.
    """
    import imageio_ffmpeg

    path = Path(path)
    check_video(path)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise UserError(f"no frames were given for {path}, so there is no video to write.")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise UserError(f"frames of {width}×{height} px given; H.264 needs an even width and height.")
    with atomic_path(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            (width, height),
            fps=fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            macro_block_size=2,
            output_params=["-crf", "20", "-preset", "veryfast", "-movflags", "+faststart"],
        )
        writer.send(None)
        try:
            writer.send(np.ascontiguousarray(first))
            for frame in frames:
                if frame.shape != first.shape:
                    raise UserError(
                        f"a frame of shape {frame.shape} came after ones of {first.shape}; all must be equal."
                    )
                writer.send(np.ascontiguousarray(frame))
        except OSError as error:
            raise UserError(f"ffmpeg stopped while writing {path}: {str(error).splitlines()[-1]}.") from None
        finally:
            writer.close()
        if not temporary.is_file() or not temporary.stat().st_size:
            raise UserError(f"ffmpeg wrote nothing to {path}; set IMAGEIO_FFMPEG_EXE to one that has libx264.")
    return path


def check_video(path: Path | str) -> None:
    """Raise a `UserError` unless `path` ends in .mp4 and there is an ffmpeg: better before the frames are made."""
    import imageio_ffmpeg

    if Path(path).suffix != ".mp4":
        raise UserError(f"{path} given for a video; its name must end in .mp4.")
    try:
        found = shutil.which(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        found = None
    if not found:
        raise UserError(
            "no ffmpeg was found to write the video with; reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to one."
        )
