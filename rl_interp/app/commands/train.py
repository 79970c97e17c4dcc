"""`rl-interp train dqn`, `train impala` and `train dreamerv3`."""

import time
from collections.abc import Callable
from dataclasses import replace
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
from rl_interp.app.progress import progress_bar, warn
from rl_interp.core.config import differences
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.locks import writing
from rl_interp.core.rollout import Episodes
from rl_interp.core.run import Run

Command = Callable[..., dict[str, Any]]


def dqn_command(env: str | None = None, cbet: bool = False) -> Command:
    """`train dqn` with the defaults for an environment."""
    default = DQNConfig() if env is None else dqn.default_config(env)
    if cbet:
        raise UserError("--cbet given to train dqn, which has no bonus; train impala with it.")

    def train_dqn(
        config: Annotated[DQNConfig, tyro.conf.arg(name="")] = default,
        seed: int = 0,
        run: str | None = None,
        device: str = "auto",
    ) -> dict[str, Any]:
        """Train a DQN on an Atari game; the same command again resumes it. --env ID is short for --env.id.

        Args:
            config: See the fields.
            seed: Of weights, exploration, replay sampling and environments.
            run: Name under runs/ or a path; by default made of agent, game and seed.
            device: auto, cpu or cuda.
        """
        return train_agent(
            "dqn", config, seed, run, lambda opened, report: dqn.train(config, opened, seed, device, report)
        )

    return train_dqn


def impala_command(env: str | None = None, cbet: bool = False) -> Command:
    """`train impala` with the defaults for an environment, and the bonus's flags where it is asked for."""
    default = impala.default_config(env or IMPALAConfig().env.id, cbet=CBETConfig() if cbet else None)

    def train_impala(
        config: Annotated[IMPALAConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = default,
        seed: int = 0,
        run: str | None = None,
        actors: int | None = None,
        ray: str | None = None,
        device: str = "auto",
    ) -> dict[str, Any]:
        """Train an IMPALA agent; the same command again resumes it.

        --env ID chooses the environment and the defaults that suit it; --cbet adds the exploration bonus, whose own
        flags (--cbet.coefficient and so on) then appear here.

        Args:
            config: See the fields.
            seed: Of weights, exploration, counts and environments.
            run: Name under runs/ or a path; by default made of agent, environment and seed.
            actors: Processes that play: by default one less than there are cores; 0 for none but this one, which is
                slower and reproducible bit for bit.
            ray: Address of a Ray cluster for the actors ("local" starts one here); needs the extra distributed.
            device: auto, cpu or cuda; of the learner.
        """
        return train_agent(
            "impala", config, seed, run,
            lambda opened, report: impala.train(config, opened, seed, device, report, actors, ray, warn),
        )  # fmt: skip

    return train_impala


def dreamerv3_command(env: str | None = None, size: str | None = None, cbet: bool = False) -> Command:
    """`train dreamerv3` with the defaults for an environment and a size, and the bonus's flags where asked for."""
    default = dreamerv3.default_config(
        env or DreamerV3Config().env.id, size or "tiny", cbet=CBETConfig() if cbet else None
    )

    def train_dreamerv3(
        config: Annotated[DreamerV3Config, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = default,
        seed: int = 0,
        run: str | None = None,
        device: str = "auto",
    ) -> dict[str, Any]:
        """Train a DreamerV3 agent; the same command again resumes it.

        --env ID chooses the environment, and --size NAME the widths, with the defaults that suit them: tiny is for a
        CPU, small to xlarge are as published. --cbet adds the exploration bonus, whose own flags (--cbet.coefficient
        and so on) then appear here.

        Args:
            config: See the fields.
            seed: Of weights, latents, exploration, counts, replay sampling and environments.
            run: Name under runs/ or a path; by default made of agent, environment and seed.
            device: auto, cpu or cuda.
        """
        return train_agent(
            "dreamerv3", config, seed, run, lambda opened, report: dreamerv3.train(config, opened, seed, device, report)
        )

    return train_dreamerv3


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
            "a run can be made longer, not shorter: give another --run."
        )
    if config.agent_steps > theirs.agent_steps:
        _say_longer(opened, theirs, config)
    return opened


def _require_same(path: Path, recorded: Any, given: Any) -> None:
    if other := differences(recorded, given):
        raise RunError(
            f"{path} already holds a run of which {other} (all is in its config.yaml); repeat that one's flags to "
            "resume it, or give another --run."
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
