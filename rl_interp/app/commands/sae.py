"""`rl-interp sae fit`, `sae evaluate` and `sae report`."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from rl_interp.app.autoencoder import fit_run, load_sae, metrics_json, play_spliced
from rl_interp.app.commands.analyse import store_path
from rl_interp.app.load import load_agent, new_run_path
from rl_interp.app.report import build, write_report
from rl_interp.core.errors import at_least_one
from rl_interp.core.files import write_json
from rl_interp.core.store import ActivationStore
from sae import SAEConfig


def sae_fit(
    run: tyro.conf.Positional[str],
    hook: str = "fc.post",
    config: Annotated[SAEConfig, tyro.conf.arg(name="")] = SAEConfig(),  # noqa: B008 - frozen
    name: Annotated[str | None, tyro.conf.arg(name="as")] = None,
    checkpoint: int | None = None,
) -> dict[str, Any]:
    """Fit a Top-K sparse autoencoder on collected activations; the same command again resumes it.

    Args:
        run: The agent's run; `rl-interp collect` has stored its activations.
        hook: Name of the hook point.
        config: See the fields.
        name: Of the new run, or a path; by default made of the agent's, the hook and the sizes.
        checkpoint: Step of the agent's checkpoint; by default the newest.
    """
    loaded = load_agent(run, checkpoint)
    store = ActivationStore(store_path(loaded.run, hook))
    path = new_run_path(name or f"{loaded.run.path.name}-sae-{hook}-{config.latents}-k{config.k}-seed{config.seed}")
    trainer, seconds = fit_run(loaded, store, config, path)
    fitted = load_sae(path)
    metrics = metrics_json(fitted)
    write_json(path / "analyses" / "metrics.json", metrics)
    return {"run": str(path), "samples": trainer.samples, "samples_per_second": trainer.samples / seconds, **metrics}


def sae_evaluate(
    run: tyro.conf.Positional[str], episodes: int = 30, seed: int = 1_000, epsilon: float = 0.001
) -> dict[str, Any]:
    """Measure an autoencoder: reconstruction, latents, policy, and the return of episodes played through it.

    Args:
        run: The autoencoder's run.
        episodes: Whole episodes per condition: original, spliced, zero- and mean-ablated.
        seed: Of the episodes.
        epsilon: Probability of a random action.
    """
    at_least_one(episodes=episodes)
    fitted = load_sae(run)
    result = {"run": str(fitted.run.path), **metrics_json(fitted), **play_spliced(fitted, episodes, seed, epsilon)}
    write_json(fitted.run.path / "analyses" / "evaluation.json", result)
    return result


def sae_report(run: tyro.conf.Positional[str], output: Path | None = None, top: int = 4) -> dict[str, Any]:
    """Write the autoencoder's report: one HTML file that needs nothing else.

    Args:
        run: The autoencoder's run; `rl-interp sae evaluate` adds the returns to its report.
        output: The file; by default report.html in the run.
        top: Top frames per feature, each from another episode.
    """
    at_least_one(top=top)
    fitted = load_sae(run)
    path = output or fitted.run.path / "report.html"
    write_report(build(fitted, top), path)
    return {"run": str(fitted.run.path), "report": str(path)}
