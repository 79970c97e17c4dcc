"""Train an agent: DQN, IMPALA or DreamerV3; the same command again resumes it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from rl_interp.agents import dqn, dreamerv3, impala
from rl_interp.agents.cbet import CBETConfig
from rl_interp.agents.dqn import DQNConfig
from rl_interp.agents.dreamerv3 import DreamerV3Config
from rl_interp.agents.impala import IMPALAConfig
from rl_interp.agents.load import agent_package, new_run_path
from rl_interp.agents.loop import Report, TrainConfig
from rl_interp.analysis.playing import scores_json
from rl_interp.app.commands.flags import Cluster, CountOrNone, Device, NewName, Seed, config_from, optional
from rl_interp.app.progress import progress_bar, warn
from rl_interp.core.config import differences
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.locks import writing
from rl_interp.core.rollout import Episodes
from rl_interp.core.run import Run

EnvId = Annotated[str | None, optional("ID")]
Bonus = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class _Asked:
    """Flags on which a training's defaults depend."""

    env: str | None = None
    size: str | None = None
    cbet: bool = False

    @property
    def bonus(self) -> CBETConfig | None:
        return CBETConfig() if self.cbet else None


def _asked(arguments: list[str]) -> _Asked:
    """What these arguments say of them; a setting of the bonus asks for it, too."""
    asked, others = tyro.cli(_Asked, args=arguments, return_unknown_args=True, add_help=False)
    return replace(asked, cbet=asked.cbet or any(each.startswith("--cbet.") for each in others))


def _dqn_config(arguments: list[str]) -> DQNConfig:
    asked = _asked(arguments)
    if asked.cbet:
        raise UserError("--cbet given to train dqn, which has no bonus; train impala with it.")
    return DQNConfig() if asked.env is None else dqn.default_config(asked.env)


def _impala_config(arguments: list[str]) -> IMPALAConfig:
    asked = _asked(arguments)
    return impala.default_config(asked.env or IMPALAConfig().env.id, cbet=asked.bonus)


def _dreamerv3_config(arguments: list[str]) -> DreamerV3Config:
    asked = _asked(arguments)
    return dreamerv3.default_config(asked.env or DreamerV3Config().env.id, asked.size or "tiny", cbet=asked.bonus)


@config_from(_dqn_config)
def train_dqn(
    config: Annotated[DQNConfig, tyro.conf.arg(name="")],
    env: EnvId = None,
    seed: Seed = 0,
    name: NewName = None,
    device: Device = "auto",
) -> dict[str, Any]:
    """Train a DQN on an Atari game.

    The same command again resumes the run; with more --agent-steps it makes a finished one longer.

    Args:
        config: Settings of the training.
        env: Gymnasium id of the game.
        seed: Seed of the weights, exploration, replay sampling and environments.
        name: Name of the new run, or a path; by default made of agent, game and seed.
        device: Device to learn on.
    """
    return train_agent(
        "dqn", config, seed, name, lambda opened, report: dqn.train(config, opened, seed, device, report)
    )


@config_from(_impala_config)
def train_impala(
    config: Annotated[IMPALAConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands],
    env: EnvId = None,
    cbet: Bonus = False,
    seed: Seed = 0,
    name: NewName = None,
    actors: Annotated[CountOrNone | None, optional("INT")] = None,
    ray: Cluster = None,
    device: Device = "auto",
) -> dict[str, Any]:
    """Train an IMPALA agent, on pixels or symbols, with or without a memory.

    The same command again resumes the run; with more --agent-steps it makes a finished one longer. Defaults are those
    that suit the environment: add --env and --help to see them.

    Args:
        config: Settings of the training.
        env: Gymnasium id of the environment, which also chooses the defaults of what follows.
        cbet: Add the exploration bonus CBET, whose own flags (--cbet.coefficient and so on) --help then shows.
        seed: Seed of the weights, exploration, counts and environments.
        name: Name of the new run, or a path; by default made of agent, environment and seed.
        actors: Number of processes that play; by default one less than there are cores. With 0, playing and learning
            take turns in one process, which is slower and reproducible bit for bit.
        ray: Address of a Ray cluster to run the actors on, or "local" to start one here; needs the extra distributed.
        device: Device to learn on.
    """
    return train_agent(
        "impala", config, seed, name,
        lambda opened, report: impala.train(config, opened, seed, device, report, actors, ray, warn),
    )  # fmt: skip


@config_from(_dreamerv3_config)
def train_dreamerv3(
    config: Annotated[DreamerV3Config, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands],
    env: EnvId = None,
    cbet: Bonus = False,
    seed: Seed = 0,
    name: NewName = None,
    device: Device = "auto",
) -> dict[str, Any]:
    """Train a DreamerV3 agent.

    The same command again resumes the run; with more --agent-steps it makes a finished one longer. Defaults are those
    that suit the environment and the size: add --env, --size and --help to see them.

    Args:
        config: Settings of the training.
        env: Gymnasium id of the environment, which also chooses the defaults of what follows.
        cbet: Add the exploration bonus CBET, whose own flags (--cbet.coefficient and so on) --help then shows.
        seed: Seed of the weights, latents, exploration, counts, replay sampling and environments.
        name: Name of the new run, or a path; by default made of agent, environment and seed.
        device: Device to learn on.
    """
    return train_agent(
        "dreamerv3", config, seed, name, lambda opened, report: dreamerv3.train(config, opened, seed, device, report)
    )


def train_agent(
    kind: str, config: TrainConfig, seed: int, name: str | None, train: Callable[[Run, Report], Episodes]
) -> dict[str, Any]:
    """Make or resume the run, train it with a progress bar, and say how it went."""
    _ = config.env.action_names  # an unknown environment is refused before a run is made for it
    path = new_run_path(name or default_name(kind, config, seed))
    with writing(path):
        return _train(path, kind, config, seed, train)


def _train(
    path: Path, kind: str, config: TrainConfig, seed: int, train: Callable[[Run, Report], Episodes]
) -> dict[str, Any]:
    opened = _open_or_create(path, kind, config, seed)
    started, before = time.perf_counter(), (opened.checkpoint_steps()[-1:] or [0])[0]
    with progress_bar(f"Training {path.name}", config.agent_steps, "decisions") as update:
        shown: dict[str, float] = {}

        def report(step: int, values: dict[str, float]) -> None:
            shown.update({k: v for k, v in values.items() if k in ("episode_return", "eval_return", "loss")})
            update(step, "  ".join(f"{name} {value:.3g}" for name, value in shown.items()))

        final = train(opened, report)
    opened.close()
    newest = opened.checkpoint_steps()[-1]
    return {
        "run": str(path),
        "agent_steps": newest,
        "env_frames": newest * config.env.frames_per_step,
        # A run shared without its training state does not say how many there were.
        "updates": opened.load_state(newest)["learner"]["updates"] if opened.has_state(newest) else None,
        "steps_per_second": (newest - before) / (time.perf_counter() - started),
        "evaluation": scores_json(final, config.env.scored, seed + 1, config.eval_epsilon),
    }


def default_name(kind: str, config: TrainConfig, seed: int) -> str:
    """e.g. `dqn-mspacman-seed0`, `impala-minigrid-unlock-cbet-seed3`."""
    task = config.env.id.rpartition("/")[2].lower().replace(",", "+")
    for suffix in ("-v0", "-v1", "-v5"):
        task = task.replace(suffix, "")
    kinds = [word for word in ("cbet", "pretrain", "explorer") if getattr(config, word, None)]
    return "-".join([kind, task, *kinds, f"seed{seed}"])


def _open_or_create(path: Path, kind: str, config: TrainConfig, seed: int) -> Run:
    if not Run(path).checkpoint_steps():
        if (path / "meta.json").exists():
            warn(f"{path} was begun before and has no checkpoint; it begins anew.")
        return Run.create(path, kind, config, seed)
    opened = Run.open(path)
    _require_same(path, {name: opened.meta[name] for name in ("kind", "seed")}, {"kind": kind, "seed": seed})
    theirs = agent_package(kind).load_config(opened)
    _require_same(path, replace(theirs, agent_steps=config.agent_steps), config)
    if config.agent_steps < theirs.agent_steps:
        raise RunError(
            f"{path} is trained for {theirs.agent_steps} decisions, and --agent-steps {config.agent_steps} was given; "
            "a run can be made longer, not shorter: give a different --name."
        )
    if config.agent_steps > theirs.agent_steps:
        _say_longer(opened, theirs, config)
    return opened


def _require_same(path: Path, recorded: Any, given: Any) -> None:
    if other := differences(recorded, given):
        raise RunError(
            f"{path} already holds a run of which {other} (all is in its config.yaml); repeat that one's flags to "
            "resume it, or give a different --name."
        )


def _say_longer(run: Run, before: TrainConfig, config: TrainConfig) -> None:
    sentence = f"{run.path} is made longer, from {before.agent_steps} to {config.agent_steps} decisions."
    # Of the schedules, IMPALA's alone depends on the run's length.
    if isinstance(before, IMPALAConfig) and isinstance(config, IMPALAConfig):
        at = run.checkpoint_steps()[-1]
        rates = [each.learning_rate * max(0.0, 1 - at / each.agent_steps) for each in (before, config)]
        sentence += (
            f" Its step size falls to 0 at the last decision, so that at decision {at} it now is {rates[1]:.3g} "
            f"instead of {rates[0]:.3g}."
        )
    warn(sentence)
