"""The main job, end to end: score an agent, decompose its hidden layer, film its saliency."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rl_interp.agents.load import Loaded
from rl_interp.analysis.playing import collect_store, score, scores_json
from rl_interp.analysis.sae.evaluation import metrics_json, play_spliced
from rl_interp.analysis.sae.fitting import fit_run, require_held_out
from rl_interp.analysis.sae.report import build
from rl_interp.analysis.sae.runs import load_sae
from rl_interp.analysis.saliency_video import film
from rl_interp.core.errors import RunError, at_least_one
from rl_interp.core.files import remove, write_json
from rl_interp.core.locks import lock_file, writing
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.provenance import provenance
from rl_interp.sae import SAEConfig

EPSILON = 0.001
"""Probability of a random action while scores are played."""
_MARK = "demo.json"
_WRITTEN = (_MARK, "result.json", "report.html", "saliency.mp4", "saliency.png", "activations", "sae")
"""What a demo writes."""


def demo(
    loaded: Loaded,
    output: Path,
    render: Callable[[dict[str, Any], Path], Path],
    episodes: int = 30,
    samples: int = 60_000,
    config: SAEConfig = SAEConfig(),  # noqa: B008 - frozen
    steps: int = 300,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Write a store, a dictionary, a film and a report into a directory, whose earlier contents are replaced.

    Args:
        render: makes a page at a path of what `analysis.sae.report.build` gives.
        episodes: whole episodes per condition.
        samples: activations to collect.
        steps: length of the film.

    Raises:
        RunError: the directory holds anything but a demo.
    """
    at_least_one(episodes=episodes, samples=samples, steps=steps)
    require_held_out(config)
    with writing(output):
        started = time.perf_counter()
        _clear(output)
        played = {"seed": 1_000 + seed, "epsilon": EPSILON}
        scores = score(loaded, episodes, **played, progress=progress)
        store = collect_store(loaded, "fc.post", samples, output / "activations" / "fc.post", seed, progress=progress)
        seen, rate = fit_run(loaded, store, config, output / "sae", progress=progress)
        fitted = load_sae(output / "sae", opened=(loaded, store), progress=progress)
        figures = metrics_json(fitted)
        figures |= play_spliced(fitted, episodes, **played, known={"original": scores.returns}, progress=progress)
        write_json(output / "sae" / "analyses" / "evaluation.json", figures | {"made_from": fitted.made_from})
        video = film(loaded, output / "saliency.mp4", "perturbation", "advantage", steps, None, seed, progress=progress)
        report = render(build(fitted, progress=progress), output / "report.html")
        result = {
            "agent": loaded.source | scores_json(scores, loaded.env, **played),
            "sae": {"run": str(fitted.run.path), "samples": seen, "samples_per_second": rate} | figures,
            "saliency": video,
            "paths": {"report": str(report), "video": video["video"]},
            "seconds": time.perf_counter() - started,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        write_json(output / "result.json", result)
    return result


def _clear(output: Path) -> None:
    """Empty the directory of an earlier demo, and no other. Its mark stays: wherever a demo is killed, it can be run
    again."""
    with writing(output / "sae"):  # one that was killed while it fitted has left this lock
        pass
    there = sorted(path.name for path in output.iterdir() if path.name != lock_file(output.resolve()).name)
    foreign = [name for name in there if name not in _WRITTEN]
    if foreign or (there and _MARK not in there):
        first = f" ({foreign[0]})" if foreign else ""
        raise RunError(f"{output} holds other things than a demo, which would be lost{first}; give another --output.")
    for name in there:
        if name != _MARK:
            remove(output / name)
    write_json(output / _MARK, provenance())
