"""Runs made of checkpoints that other programs saved, to be evaluated and analysed like our own."""

import tempfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from rl_interp.agents.pretrained import cleanrl, drc, dreamerv3, lm, maze, sb3
from rl_interp.agents.pretrained.policy import Policy, PolicyConfig, make_agent
from rl_interp.agents.pretrained.sb3_itself import difference
from rl_interp.agents.pretrained.vec_normalize import normalised, read_statistics
from rl_interp.agents.transformer import TransformerConfig
from rl_interp.agents.transformer import make_agent as transformer_of
from rl_interp.core.agent import Agent
from rl_interp.core.envs import EnvConfig, SokobanConfig, TextConfig, make_labelled
from rl_interp.core.envs.text.config import PREFIX
from rl_interp.core.errors import RunError, ShapeError
from rl_interp.core.files import sha256, write_text
from rl_interp.core.run import Run
from rl_interp.core.weights import Held, with_weights


def import_dreamerv3(checkpoint: Path, env: EnvConfig, path: Path) -> dict[str, Any]:
    """Make a run of a checkpoint of the published package dreamerv3 1.5.0.

    Args:
        env: what the agent was trained on.
        path: directory of the run.

    Raises:
        RunError: no such checkpoint, one of another size or environment, or a directory that holds a run.
    """
    step, arrays = dreamerv3.read_checkpoint(checkpoint)
    agent = dreamerv3.agent_of(arrays, env, checkpoint)
    run = _saved(agent, step, path, "dreamerv3", agent.config, [checkpoint])
    return {"run": str(run.path), "agent_steps": step, "size": agent.config.size, "parameters": _parameters(agent)}


def import_maze(checkpoint: Path, region: int, path: Path) -> dict[str, Any]:
    """Make a run of a maze policy of train-procgen-pytorch (Langosco et al. 2022).

    Args:
        region: cells along the region at the top right that its cheese was in; 0 for anywhere.
        path: directory of the run.

    Raises:
        RunError: no such checkpoint, one of a different architecture, or a directory that holds a run.
    """
    config, agent = maze.agent_of(maze.read_checkpoint(checkpoint), region, checkpoint)
    run = _saved(agent, 0, path, maze.KIND, config, [checkpoint])  # the file does not say how long it was trained
    return {"run": str(run.path), "channels": list(config.channels), "parameters": _parameters(agent)}


def import_drc(folder: Path, env: SokobanConfig, path: Path) -> dict[str, Any]:
    """Make a run of a published DRC (Taufeeque et al. 2024).

    Args:
        folder: with `cfg.json` and `model`, as train-learned-planner saves them.
        env: levels and size of the boards that it plays.
        path: directory of the run.

    Raises:
        RunError: no such folder, one of a different network or of boards of another size, or a directory that holds a
            run.
    """
    steps, ticks, arrays = drc.read_checkpoint(folder)
    config, agent = drc.agent_of(arrays, ticks, env, folder)
    run = _saved(agent, steps, path, "impala", config, [folder / "cfg.json", folder / "model"])
    sizes = {"layers": config.layers, "ticks": config.ticks, "channels": config.channels[0]}
    return {"run": str(run.path), "agent_steps": steps, **sizes, "parameters": _parameters(agent)}


def import_lm(source: str, task: str, path: Path) -> dict[str, Any]:
    """Make a run of a GPT-2-like or Llama-like language model.

    Args:
        source: a folder with config.json, safetensors and tokenizer.json, a .gguf file, or a name of `lm.PACKAGES`.
        task: of the prompts that it is shown.
        path: directory of the run.

    Raises:
        RunError: no such model, one of another architecture, or a directory that holds a run.
        UserError: a package or memory is missing, or words of the task are no tokens of the model.
    """
    read = lm.read_model(source)
    tokenizer = path.resolve() / "tokenizer.json"
    shape = {name: value for name, value in vars(read.shape).items() if name != "vocabulary"}
    with tempfile.TemporaryDirectory() as folder:  # what does not fit is said before a run is made
        tried = Path(folder) / "tokenizer.json"
        write_text(tried, read.tokenizer)
        env = TextConfig(PREFIX + task, tokenizer=str(tried))
        make_labelled(env).reset(seed=0)
        vocabulary = len(env.action_names)
    if vocabulary > read.shape.vocabulary:
        raise RunError(
            f"{source} has a tokenizer of {vocabulary} tokens and an embedding of {read.shape.vocabulary}; give those "
            "that belong together."
        )
    config = TransformerConfig(
        env=TextConfig(PREFIX + task, tokenizer=str(tokenizer)), agent_steps=1, words=read.shape.vocabulary, **shape
    )
    agent = with_weights(lambda: transformer_of(config), Held(read.weights, source), source).eval()
    files = [{"checkpoint": str(file), "sha256": sha256(file)} for file in read.files]
    run = Run.create(path, "transformer", config, 0, parent=files[0] | ({"with": files[1:]} if files[1:] else {}))
    write_text(tokenizer, read.tokenizer)
    run.save_checkpoint(0, agent.state_dict())
    return {"run": str(run.path), "parameters": _parameters(agent), "vocabulary": read.shape.vocabulary, **shape}


def import_sb3(model: Path, env: EnvConfig, path: Path, statistics: Path | None = None) -> dict[str, Any]:
    """Make a run of a model of Stable-Baselines3 or its contrib package.

    Args:
        model: the zip that `model.save` wrote.
        env: what the agent was trained on.
        path: directory of the run.
        statistics: what `VecNormalize.save` wrote, for an agent whose observations were normalised.

    Raises:
        RunError: the files are no such ones, of an algorithm or with parts that are not read, of another environment;
            or a directory that holds a run.
    """
    config, weights = sb3.read(model, env)
    found = read_statistics(statistics) if statistics else None
    if statistics and found:
        config, weights = normalised(config, weights, found, statistics)
    agent = policy_of(config, weights, model)
    checked = difference(agent, model, found)
    run = _saved(agent, 0, path, sb3.KIND, config, [model, *([statistics] if statistics else [])])
    return _result(agent, run, checked, "Stable-Baselines3 or its contrib package is not installed")


def import_cleanrl(model: Path, algorithm: cleanrl.Algorithm, env: EnvConfig, path: Path) -> dict[str, Any]:
    """Make a run of an agent that one of CleanRL's scripts for PyTorch saved.

    Args:
        model: the `.cleanrl_model`.
        env: what the agent was trained on.
        path: directory of the run.

    Raises:
        RunError: the file is no such one, of another algorithm or environment, or a directory that holds a run.
    """
    config, weights = cleanrl.read(model, algorithm, env)
    agent = policy_of(config, weights, model)
    run = _saved(agent, 0, path, cleanrl.KIND, config, [model])
    return _result(agent, run, None, "CleanRL has its networks in its scripts, which can't be imported")


def policy_of(config: PolicyConfig, weights: Mapping[str, Tensor], source: Path) -> Policy:
    """The policy of a configuration that was read off its weights.

    Raises:
        RunError: it has other actions than its environment takes, or reads other observations than it shows.
    """
    env, count = config.env, len(config.env.action_names)
    continuous = config.output in ("gaussian", "gsde")
    have = config.actions[0] if continuous else prod(config.actions)
    if have != count or continuous != (env.action_kind == "continuous"):
        raise RunError(
            f"{source} is of an agent with {have} {'continuous' if continuous else 'discrete'} actions; {env.id} has "
            f"{count} {env.action_kind} ones."
        )
    try:
        return with_weights(lambda: make_agent(config), Held(weights, source), source).eval()
    except ShapeError as error:
        raise RunError(
            f"{source} does not fit {env.id}, which shows {env.observation_kind} of {env.observation_shape}: weights "
            f"are {error.have}, where {error.want} are wanted; give --env as what it was trained in, with its wrappers."
        ) from None


def _result(agent: Policy, run: Run, checked: float | None, why_not: str) -> dict[str, Any]:
    result = {
        "run": str(run.path),
        "kind": run.meta["kind"],
        "algorithm": agent.config.algorithm,
        "env": agent.config.env.id,
        "parameters": _parameters(agent),
        "hook_points": list(agent.hook_points),
        "checked": checked,
    }
    return result if checked is not None else result | {"unchecked": f"{why_not}, so nothing was compared with it"}


def _saved(agent: Agent, step: int, path: Path, kind: str, config: Any, files: list[Path]) -> Run:
    checkpoint, *others = [{"checkpoint": str(file), "sha256": sha256(file)} for file in files]
    run = Run.create(path, kind, config, 0, parent=checkpoint | ({"with": others} if others else {}))
    run.save_checkpoint(step, agent.state_dict())
    return run


def _parameters(agent: Agent) -> int:
    return sum(each.numel() for each in agent.parameters())
