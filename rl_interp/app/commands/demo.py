"""`rl-interp demo`: the main job, end to end, on the reference agent."""

import resource
import time
from pathlib import Path
from typing import Annotated, Any

import tyro

from rl_interp.agents.load import Loaded, load_agent
from rl_interp.analysis.playing import collect_store, scores_json
from rl_interp.analysis.sae.evaluation import metrics_json, play_spliced
from rl_interp.analysis.sae.runs import fit_run, load_sae, require_held_out
from rl_interp.analysis.saliency_video import film
from rl_interp.app.commands.flags import Count, Seed
from rl_interp.app.pages import build, write_page
from rl_interp.app.progress import TERMINAL, progress_bar
from rl_interp.core.envs import make_vector
from rl_interp.core.errors import RunError, at_least_one
from rl_interp.core.files import remove, write_json
from rl_interp.core.locks import lock_file, writing
from rl_interp.core.rollout import evaluate
from rl_interp.core.run import provenance
from rl_interp.sae import SAEConfig

REFERENCE = "dqn-mspacman"
EPSILON = 0.001
_MARK = "demo.json"
_WRITTEN = (_MARK, "result.json", "report.html", "saliency.mp4", "saliency.png", "activations", "sae")
"""What a demo writes."""


def demo(
    run: Annotated[str, tyro.conf.arg(metavar="RUN")] = REFERENCE,
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/demo"),
    episodes: Count = 30,
    samples: Count = 60_000,
    config: SAEConfig = SAEConfig(),  # noqa: B008 - frozen
    steps: Count = 300,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Score the reference agent, decompose its hidden layer, film its saliency, and write a report.

    Args:
        run: The agent's run: a name under runs/ or a path.
        output: Directory to write to; an earlier demo in it is replaced.
        episodes: Number of episodes in each condition.
        samples: Number of activations to collect.
        config: Settings of the autoencoder.
        steps: Length of the video in environment steps.
        seed: Seed of everything random.
    """
    at_least_one(episodes=episodes, samples=samples, steps=steps)
    require_held_out(config)
    loaded = load_agent(run)
    with writing(output):
        return _demo(loaded, output, episodes, samples, config, steps, seed)


def _demo(
    loaded: Loaded, output: Path, episodes: int, samples: int, config: SAEConfig, steps: int, seed: int
) -> dict[str, Any]:
    started = time.perf_counter()
    _clear(output)
    env = make_vector(loaded.env, min(episodes, 16))
    with progress_bar("Playing", episodes, "episodes") as update:
        scores = evaluate(loaded.agent, env, episodes, seed=1_000 + seed, epsilon=EPSILON, progress=update)
    env.close()
    store = collect_store(loaded, "fc.post", samples, output / "activations" / "fc.post", seed, progress=TERMINAL)
    seen, rate = fit_run(loaded, store, config, output / "sae")
    fitted = load_sae(output / "sae")
    measured = metrics_json(fitted) | play_spliced(
        fitted, episodes, 1_000 + seed, EPSILON, {"original": scores.returns}
    )
    write_json(output / "sae" / "analyses" / "evaluation.json", measured | {"made_from": fitted.made_from})
    video = film(loaded, output / "saliency.mp4", "perturbation", "advantage", steps, 75, seed, progress=TERMINAL)
    report = write_page("report", build(fitted), output / "report.html")
    result = {
        "agent": loaded.source | scores_json(scores, loaded.env, 1_000 + seed, EPSILON),
        "sae": {
            "run": str(fitted.run.path),
            "samples": seen,
            "samples_per_second": rate,
        }
        | measured,
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
