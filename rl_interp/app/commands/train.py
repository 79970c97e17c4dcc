"""`rl-interp train dqn`."""

import time
from dataclasses import replace
from typing import Annotated, Any

import tyro

from agents.dqn import DQNConfig, load_config, train
from rl_interp.app.commands.evaluate import scores_json
from rl_interp.app.load import new_run_path
from rl_interp.app.progress import progress_bar
from rl_interp.core.envs.atari import rom_name
from rl_interp.core.errors import RunError
from rl_interp.core.run import Run


def train_dqn(
    config: Annotated[DQNConfig, tyro.conf.arg(name="")] = DQNConfig(),  # noqa: B008 - frozen
    env: str | None = None,
    seed: int = 0,
    run: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Train a DQN; the same command again resumes it.

    Args:
        config: See the fields.
        env: Gymnasium id, short for --env.id.
        seed: Of weights, exploration, replay sampling and environments.
        run: Name under runs/ or a path; by default made of agent, game and seed.
        device: auto, cpu or cuda.
    """
    if env is not None:
        config = replace(config, env=replace(config.env, id=env))
    rom_name(config.env.id)  # an unknown game is refused before a run is made for it
    game = config.env.id.removeprefix("ALE/").removesuffix("-v5").lower()
    path = new_run_path(run or f"dqn-{game}-seed{seed}")
    opened = _open_or_create(path, config, seed)
    started = time.perf_counter()
    with progress_bar(f"Training {path.name}", config.agent_steps, "decisions") as update:
        shown: dict[str, float] = {}

        def report(step: int, values: dict[str, float]) -> None:
            shown.update({k: v for k, v in values.items() if k in ("episode_return", "eval_return", "loss")})
            update(step, "  ".join(f"{name} {value:.3g}" for name, value in shown.items()))

        before = opened.checkpoint_steps()[-1:] or [0]
        final = train(config, opened, seed, device, report)
    opened.close()
    seconds = time.perf_counter() - started
    newest = opened.checkpoint_steps()[-1]
    return {
        "run": str(path),
        "agent_steps": config.agent_steps,
        "env_frames": config.agent_steps * config.env.frame_skip,
        # A run shared without its training state does not say how many there were.
        "updates": opened.load_state(newest)["learner"]["updates"] if opened.has_state(newest) else None,
        "steps_per_second": (config.agent_steps - before[0]) / seconds,
        "evaluation": scores_json(final, config.env, seed + 1, config.eval_epsilon),
    }


def _open_or_create(path, config: DQNConfig, seed: int) -> Run:
    if not (path / "meta.json").exists():
        return Run.create(path, "dqn", config, seed)
    opened = Run.open(path)
    if opened.meta["kind"] != "dqn" or load_config(opened) != config or opened.meta["seed"] != seed:
        raise RunError(
            f"{path} already holds a run of another kind, seed or configuration (see its config.yaml); repeat that "
            "one's flags to resume it, or give another --run."
        )
    return opened
