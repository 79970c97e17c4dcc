"""How well a diffusion policy does by sampler, number of steps and guidance."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from rl_interp.agents.beso import BESO, Sampling
from rl_interp.agents.beso.diffusion import SAMPLERS
from rl_interp.agents.load import Loaded
from rl_interp.core.envs import make_vector
from rl_interp.core.errors import UserError, at_least_one
from rl_interp.core.files import write_json, write_text
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.rollout import evaluate
from rl_interp.core.stats import Estimate, plain, wilson
from rl_interp.core.tables import markdown

STEPS = (1, 2, 3, 5, 10)
GUIDANCE = (0.0, 1.0, 1.5, 2.0)
_ENVS = 256


def compare_samplers(
    loaded: Loaded,
    steps: Sequence[int] = STEPS,
    samplers: Sequence[str] = tuple(SAMPLERS),
    guidance: Sequence[float] = GUIDANCE,
    episodes: int = 200,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Play the same episodes with each sampler and number of steps, at the run's guidance, and with each guidance, at
    the run's sampler and steps. Writes a table and the result to the run's analyses/, and returns the result with their
    paths.

    Raises:
        UserError: an agent that does not denoise, no steps, or an unknown sampler.
    """
    agent, own = diffusion(loaded), diffusion(loaded).sampling
    at_least_one(episodes=episodes)
    asked = [replace(own, sampler=name, steps=count) for name in samplers for count in steps]
    asked += [replace(own, guidance=factor) for factor in guidance]
    asked = list(dict.fromkeys(asked))  # the run's own is among both
    rows = []
    try:
        with progress.bar("Playing", len(asked), "samplings") as update:
            for sampling in asked:
                agent.sampling = sampling
                rows.append(_played(loaded, sampling, episodes, seed))
                update(len(rows))
    finally:
        agent.sampling = own
    folder = folder_of(loaded)
    result = loaded.source | {"episodes": episodes, "seed": seed, "samplings": rows}
    write_json(folder / "samplers.json", result)
    write_text(folder / "samplers.md", samplers_table(rows))
    return result | {"table": str(folder / "samplers.md"), "result": str(folder / "samplers.json")}


def diffusion(loaded: Loaded) -> BESO:
    """The run's agent, if it denoises.

    Raises:
        UserError: it does not.
    """
    if not isinstance(loaded.agent, BESO):
        raise UserError(
            f"{loaded.run.path} holds {type(loaded.agent).__name__}, which does not sample by denoising; give a run of "
            "`rl-interp train beso`."
        )
    return loaded.agent


def folder_of(loaded: Loaded) -> Path:
    """Where results about denoising lie."""
    return loaded.run.outputs / "analyses" / "denoising"


def samplers_table(rows: Sequence[dict[str, Any]]) -> str:
    """A row a sampling, in Markdown."""
    return markdown(
        ["sampler", "steps", "passes", "λ", "success", "goals reached", "return", "ways, bits"],
        (
            [
                row["sampler"], row["steps"], row["passes"], f"{row['guidance']:g}",
                Estimate(row["success_rate"], *row["success_rate_interval"]).shown(".2f"),
                "" if row.get("goals_reached") is None else f"{row['goals_reached']:.2f}", f"{row['return']:.2f}",
                "" if row.get("way_entropy") is None else f"{row['way_entropy']:.2f}",
            ]
            for row in rows
        ),
    )  # fmt: skip


def _played(loaded: Loaded, sampling: Sampling, episodes: int, seed: int) -> dict[str, Any]:
    """A row: the environment's own scores, and the share of episodes that reached all their goals, or, where that is
    not told, were paid anything."""
    with closing(make_vector(loaded.env, min(episodes, _ENVS))) as env:
        scores = evaluate(loaded.agent, env, episodes, seed=seed, epsilon=0.0)
    last = scores.last
    succeeded = last["reached"] == last["goals"] if {"reached", "goals"} <= last.keys() else scores.returns > 0
    rate = wilson(succeeded)
    return {
        "sampler": sampling.sampler, "steps": sampling.steps, "passes": len(sampling.levels),
        "guidance": sampling.guidance, "schedule": sampling.schedule,
        "return": float(scores.returns.mean()), **scores.summary(loaded.env),
        "success_rate": rate.value, "success_rate_interval": plain(rate),
    }  # fmt: skip
