"""`rl-interp collect` and `rl-interp saliency`."""

from pathlib import Path
from typing import Any, Literal

import tyro

from rl_interp.agents.load import load_agent
from rl_interp.analysis.playing import collect_store, store_path
from rl_interp.analysis.sae.runs import load_autoencoder
from rl_interp.analysis.saliency_video import film
from rl_interp.app.progress import TERMINAL


def collect(
    run: tyro.conf.Positional[str],
    hook: str = "fc.post",
    samples: int = 60_000,
    seed: int = 0,
    epsilon: float = 0.01,
    dtype: Literal["float32", "float16"] = "float32",
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Play whole episodes and store the activations of a hook point beside ground-truth labels.

    Args:
        run: Name under runs/ or a path.
        hook: Name of the hook point.
        samples: Decisions to store at least.
        seed: Of the first episode; episode i gets seed + i.
        epsilon: Probability of a random action.
        dtype: Of the stored activations.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    loaded = load_agent(run, checkpoint, device)
    store = collect_store(loaded, hook, samples, store_path(loaded.run, hook), seed, epsilon, dtype, TERMINAL)
    return loaded.source | {
        "store": str(store.path),
        "hook": hook,
        "samples": store.samples,
        "columns": store.columns(),
    }


def saliency(
    run: tyro.conf.Positional[str],
    output: Path | None = None,
    method: str = "perturbation",
    target: str = "advantage",
    decisions: int = 450,
    skip: int = 0,
    seed: int = 0,
    sae: str | None = None,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Film an episode with a saliency map on every frame, at the game's own pace.

    Args:
        run: Name under runs/ or a path.
        output: The .mp4 to write; by default in the run's videos/.
        method: perturbation, greydanus (the published masks and blur), gradient or integrated-gradients.
        target: What the map explains: chosen, advantage, value, policy-change or value-change (published with
            greydanus), q:ACTION such as q:LEFT, unit:HOOK:N such as unit:fc.post:12, or feature:N of --sae.
        decisions: Length of the film; it ends earlier if the episode does.
        skip: Decisions to play before the film starts.
        seed: Of the episode.
        sae: Run of an autoencoder on this agent, for feature:N.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    loaded = load_agent(run, checkpoint, device)
    fitted = load_autoencoder(sae, device) if sae else None
    path = output or loaded.run.path / "videos" / f"{method}-{target.replace(':', '-')}-seed{seed}.mp4"
    return loaded.source | film(loaded, path, method, target, decisions, skip, seed, fitted, TERMINAL)
