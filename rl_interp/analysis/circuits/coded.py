"""Agents of which a dictionary's latents are units."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_interp.agents.load import Loaded
from rl_interp.analysis.sae.runs import dictionary_of
from rl_interp.circuits.latents import with_latents
from rl_interp.core.errors import UserError
from rl_interp.core.read import require
from rl_interp.core.run import Run


@dataclass(frozen=True, kw_only=True)
class Coded(Loaded):
    """An agent in which a dictionary's latents stand at a hook point; it decides as the agent does."""

    plain: Loaded
    """The agent without it."""
    at: str
    """The hook point."""
    dictionary: str
    """Path of the dictionary's run."""
    dictionary_sha256: str

    @property
    def source(self) -> dict[str, Any]:
        return super().source | {"sae": self.dictionary, "sae_sha256": self.dictionary_sha256}


def coded(loaded: Loaded, dictionary: Path | str | None) -> Loaded:
    """An agent with the latents of a dictionary's run, or as it is without one.

    Raises:
        RunError: no such run, or one that holds no dictionary.
        UserError: a transcoder, or a dictionary of another agent or checkpoint.
    """
    if dictionary is None:
        return loaded
    run = Run.open(dictionary)
    sae = dictionary_of(run.path)
    parent = run.meta.get("parent") or {}
    require(parent, f"the parent in {run.path}/meta.json", run=str, step=int, hook=str)
    if sae.transcodes:
        raise UserError(f"{run.path} is a transcoder; latents of an autoencoder can stand for a layer: give one.")
    if parent.get("weights_sha256", loaded.weights_sha256) != loaded.weights_sha256:  # earlier versions kept none
        raise UserError(
            f"{run.path} was fitted to step {parent['step']} of {parent['run']}, and step {loaded.step} of "
            f"{loaded.run.path} has other weights; give a dictionary of this agent."
        )
    agent = with_latents(loaded.agent, sae.to(loaded.agent.device).requires_grad_(False), parent["hook"])
    fields = {name: getattr(loaded, name) for name in ("run", "step", "env", "weights_sha256")}
    sha256 = run.weights_sha256(run.newest_step())
    return Coded(
        **fields, agent=agent.eval(), plain=loaded, at=parent["hook"], dictionary=str(run.path),
        dictionary_sha256=sha256,
    )  # fmt: skip
