"""Train an agent: DQN, IMPALA, DreamerV3, a transformer or BESO; the same command again resumes it."""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, Any, Literal

import tyro

from rl_interp.agents import beso, dqn, dreamerv3, impala, transformer
from rl_interp.agents.beso import BESOConfig
from rl_interp.agents.cbet import default_bonus
from rl_interp.agents.dqn import DQNConfig
from rl_interp.agents.dreamerv3 import DreamerV3Config
from rl_interp.agents.dreamerv3.config import SIZES
from rl_interp.agents.impala import IMPALAConfig
from rl_interp.agents.impala.config import NETWORKS
from rl_interp.agents.transformer import TransformerConfig
from rl_interp.analysis.training import train_agent
from rl_interp.app.commands.environment import DEFAULT, Environment, FromEnv
from rl_interp.app.commands.flags import (
    Cluster,
    CountOrZero,
    Device,
    NewName,
    Seed,
    config_from,
    optional,
)
from rl_interp.app.progress import TERMINAL
from rl_interp.core.envs import EnvConfig, TextConfig, TwoWaysConfig, env_config
from rl_interp.core.envs.text.config import PREFIX, TASKS
from rl_interp.core.errors import UserError

_WANTED = {
    "--env": "the id of an environment, such as MiniGrid-Unlock-v0",
    "--size": f"one of {', '.join(SIZES)}",
    "--network": f"one of {', '.join(NETWORKS)}",
    "--preset": f"one of {', '.join(impala.PRESETS)}",
    "--task": f"one of {', '.join(TASKS)}",
}
Bonus = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class _Asked:
    """Flags on which a training's defaults depend."""

    env: FromEnv = field(default_factory=Environment)
    size: str | None = None
    network: str | None = None
    preset: str | None = None
    task: str | None = None
    cbet: bool = False
    pretrain: bool = False

    def bonus(self, env: EnvConfig) -> dict[str, Any]:
        if not self.cbet:
            return {}
        return {"cbet": default_bonus(env, self.pretrain), "pretrain": self.pretrain}


def _asked(arguments: list[str]) -> _Asked:
    """What these arguments say of them; a setting of the bonus asks for it, too."""
    for flag, following in pairwise([*arguments, "--"]):
        if flag in _WANTED and following.startswith("--"):
            raise UserError(f"{flag} given without a value; give {_WANTED[flag]}.")
    asked, others = tyro.cli(_Asked, args=arguments, return_unknown_args=True, add_help=False)
    return replace(asked, cbet=asked.cbet or any(each.startswith("--cbet.") for each in others))


def _dqn_config(arguments: list[str]) -> DQNConfig:
    asked = _asked(arguments)
    env = asked.env.config(DQNConfig().env)
    return dqn.default_config(env, **asked.bonus(env))


def _impala_config(arguments: list[str]) -> IMPALAConfig:
    asked = _asked(arguments)
    env = asked.env.config(IMPALAConfig().env)
    chosen = {"network": asked.network} if asked.network in NETWORKS else {}
    default = impala.PRESETS.get(asked.preset or "", impala.default_config)
    return default(env, **asked.bonus(env), **chosen)


def _dreamerv3_config(arguments: list[str]) -> DreamerV3Config:
    asked = _asked(arguments)
    env = asked.env.config(DreamerV3Config().env)
    return dreamerv3.default_config(env, asked.size or "tiny", **asked.bonus(env))


def _transformer_config(arguments: list[str]) -> TransformerConfig:
    asked = _asked(arguments)
    if asked.task is not None and asked.env.env is not None:
        raise UserError(f"--task {asked.task} given with --env {asked.env.env}; give one of them.")
    env = TextConfig() if asked.task is None else env_config(PREFIX + asked.task)
    return transformer.default_config(asked.env.config(env))


def _beso_config(arguments: list[str]) -> BESOConfig:
    asked = _asked(arguments)
    return beso.default_config(asked.env.config(TwoWaysConfig()))


@config_from(_dqn_config)
def train_dqn(
    config: Annotated[DQNConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands],
    env: FromEnv = DEFAULT,
    cbet: Bonus = False,
    seed: Seed = 0,
    name: NewName = None,
    device: Device = "auto",
) -> dict[str, Any]:
    """Train a DQN, on pixels, symbols or vectors.

    The same command again resumes the run; with more --agent-steps it makes a finished one longer. Defaults are those
    that suit the environment: add --env and --help to see them.

    Args:
        config: Settings of the training.
        env: The environment, which also chooses the defaults of what follows.
        cbet: Add the exploration bonus CBET, whose own flags (--cbet.coefficient and so on) --help then shows.
        seed: Seed of the weights, exploration, counts, replay sampling and environments.
        name: Name of the new run, or a path; by default made of agent, environment and seed.
        device: Device to learn on.
    """
    return train_agent("dqn", config, seed, name, device, TERMINAL)


@config_from(_impala_config)
def train_impala(
    config: Annotated[IMPALAConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands],
    env: FromEnv = DEFAULT,
    preset: Annotated[Literal["drc"] | None, optional("drc")] = None,
    cbet: Bonus = False,
    seed: Seed = 0,
    name: NewName = None,
    actors: Annotated[CountOrZero | None, optional("INT")] = None,
    ray: Cluster = None,
    device: Device = "auto",
) -> dict[str, Any]:
    """Train an IMPALA agent, on pixels, symbols or vectors, with or without a memory.

    The same command again resumes the run; with more --agent-steps it makes a finished one longer. Defaults are those
    that suit the environment: add --env and --help to see them.

    Args:
        config: Settings of the training.
        env: The environment, which also chooses the defaults of what follows.
        preset: Published settings as the defaults: drc for those of Taufeeque et al. 2024, 2 billion steps.
        cbet: Add the exploration bonus CBET, whose own flags (--cbet.coefficient and so on) --help then shows.
        seed: Seed of the weights, exploration, counts and environments.
        name: Name of the new run, or a path; by default made of agent, environment and seed.
        actors: Number of processes that play; by default one less than there are cores. With 0, playing and learning
            take turns in one process, which is slower and reproducible bit for bit.
        ray: Address of a Ray cluster to run the actors on, or "local" to start one here; needs the extra distributed.
        device: Device to learn on.
    """
    return train_agent("impala", config, seed, name, device, TERMINAL, actors=actors, ray_address=ray)


@config_from(_dreamerv3_config)
def train_dreamerv3(
    config: Annotated[DreamerV3Config, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands],
    env: FromEnv = DEFAULT,
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
        env: The environment, which also chooses the defaults of what follows.
        cbet: Add the exploration bonus CBET, whose own flags (--cbet.coefficient and so on) --help then shows.
        seed: Seed of the weights, latents, exploration, counts, replay sampling and environments.
        name: Name of the new run, or a path; by default made of agent, environment and seed.
        device: Device to learn on.
    """
    return train_agent("dreamerv3", config, seed, name, device, TERMINAL)


@config_from(_transformer_config)
def train_transformer(
    config: Annotated[TransformerConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands],
    task: Annotated[
        Literal["induction", "ioi", "docstring", "greater-than", "stories", "mixed"] | None,
        tyro.conf.arg(help_behavior_hint=""),
    ] = None,
    env: FromEnv = DEFAULT,
    seed: Seed = 0,
    name: NewName = None,
    device: Device = "auto",
) -> dict[str, Any]:
    """Train a small transformer on texts that a seeded grammar draws, to say the next word.

    The same command again resumes the run; with more --agent-steps it makes a finished one longer. Defaults are those
    that suit the task: add --task and --help to see them.

    Args:
        config: Settings of the training.
        task: What the texts are of, which also chooses the defaults of what follows; by default induction.
        env: The same as an environment, rl_interp/Text-TASK.
        seed: Seed of the weights, the texts and the prompts that it is scored on.
        name: Name of the new run, or a path; by default made of agent, task and seed.
        device: Device to learn on.
    """
    return train_agent("transformer", config, seed, name, device, TERMINAL)


@config_from(_beso_config)
def train_beso(
    config: Annotated[BESOConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands],
    env: FromEnv = DEFAULT,
    seed: Seed = 0,
    name: NewName = None,
    device: Device = "auto",
) -> dict[str, Any]:
    """Train BESO, a goal-conditioned policy that samples its actions by denoising, from demonstrations.

    Demonstrations are those of the environment's own controller, which the seed determines, or of a folder (--data).
    With --objective mse or mixture the same transformer says the mean action, or a Gaussian mixture, for comparison.
    The same command again resumes the run; with more --agent-steps it makes a finished one longer.

    Args:
        config: Settings of the training.
        env: The environment, which has a goal among what it shows, as rl_interp/TwoWays-v0 or PointMaze_UMaze-v3.
        seed: Seed of the demonstrations, the weights, the windows, the noise and the episodes of the evaluation.
        name: Name of the new run, or a path; by default made of agent, environment and seed.
        device: Device to learn on.
    """
    return train_agent("beso", config, seed, name, device, TERMINAL) | {"objective": config.objective}
