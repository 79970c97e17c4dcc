"""Agents of CleanRL's single-file scripts (Huang et al. 2022), saved with `--save-model` as `.cleanrl_model`: the bare
weights of PyTorch, from whose names and shapes the network is known.

    dqn.py, c51.py, ppo.py                        numbers through hidden layers
    dqn_atari.py, c51_atari.py, ppo_atari*.py     frames through the convolutions of Mnih et al. 2015
    ppo_atari_lstm.py                             a frame, and an LSTM that policy and value share
"""

import reprlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from rl_interp.agents.pretrained.layers import Input
from rl_interp.agents.pretrained.names import Renaming
from rl_interp.agents.pretrained.policy import PolicyConfig
from rl_interp.core.envs import AtariConfig, EnvConfig
from rl_interp.core.errors import RunError
from rl_interp.core.weights import read_state

KIND = "cleanrl"
"""The kind of runs that hold such an agent."""
REMEDY = "give the .cleanrl_model that a script of CleanRL's for PyTorch saved with --save-model"
Algorithm = Literal["dqn", "c51", "ppo", "ppo-lstm"]


def read(path: Path, algorithm: Algorithm, env: EnvConfig) -> tuple[PolicyConfig, dict[str, Tensor]]:
    """The configuration of a saved agent, and its weights by our names. No code in the file is run.

    Of an Atari game the agent gets as many frames as it reads, which its weights say.

    Raises:
        RunError: the file is not such a one, is of another algorithm, or of another environment.
    """
    data = read_state(path, REMEDY)
    weights = data.get("model_weights", data) if isinstance(data, dict) else None  # c51 saves its arguments beside them
    if not (isinstance(weights, dict) and weights and all(isinstance(each, Tensor) for each in weights.values())):
        raise RunError(f"{path} holds no weights; {REMEDY}.")
    weights = {str(name): weight for name, weight in weights.items()}
    _check_algorithm(weights, algorithm, path)
    names = Renaming(weights, path, REMEDY)
    pixels = names.has("network.0.weight") and weights["network.0.weight"].dim() == 4
    if pixels:
        channels, frames = names.convolutions("network", "parts.parts.0")
        if isinstance(env, AtariConfig):
            env = replace(env, frame_stack=frames)
        features, _ = names.layer("network.7", "parts.parts.0.fc")
        inputs = Input(env.observation_shape, divisor=255.0, channels=channels, features=features)
    else:
        inputs = Input(env.observation_shape)
    config = PolicyConfig(env, algorithm, "q", (len(env.action_names),), (inputs,), activation="ReLU")
    config = _value_based(config, names, pixels) if algorithm in ("dqn", "c51") else _ppo(config, names, pixels)
    return config, names.finish(f"an agent of CleanRL's {algorithm}")


def _value_based(config: PolicyConfig, names: Renaming, pixels: bool) -> PolicyConfig:
    hidden, outputs = names.head("network", "policy", 9 if pixels else 0)
    if config.algorithm == "dqn":
        return replace(config, hidden=hidden, actions=(outputs,))
    atoms = names.found["atoms"] = names.take("atoms", 1)
    return replace(config, hidden=hidden, output="atoms", support=len(atoms), actions=(outputs // len(atoms),))


def _ppo(config: PolicyConfig, names: Renaming, pixels: bool) -> PolicyConfig:
    config = replace(config, output="logits")
    if not pixels:
        hidden, actions = names.head("actor", "policy")
        value_hidden, _ = names.head("critic", "value")
        return replace(config, hidden=hidden, value_hidden=value_hidden, actions=(actions,), activation="Tanh")
    lstm = names.lstms("lstm", "lstm")[0] if config.algorithm == "ppo-lstm" else 0
    actions, _ = names.layer("actor", "policy.out")
    names.layer("critic", "value.out")
    return replace(config, lstm=lstm, actions=(actions,), value_hidden=())


def _check_algorithm(weights: Mapping[str, Tensor], given: Algorithm, path: Path) -> None:
    if "actor_logstd" in weights:
        raise RunError(
            f"{path} is of ppo_continuous_action.py, which normalises observations by statistics that it does not "
            "save, so its network alone can't play; train one without, and wrap it by `rl-interp import agent`."
        )
    value_based = "network.0.weight" in weights and not any(name.startswith("actor") for name in weights)
    if value_based:
        found = "c51" if "atoms" in weights else "dqn"
    elif any(name.startswith("actor.") for name in weights):
        found = "ppo-lstm" if any(name.startswith("lstm.") for name in weights) else "ppo"
    else:
        first = reprlib.repr(next(iter(weights)))
        raise RunError(f"{path} holds {first}, which no agent of dqn, c51, ppo or ppo-lstm has; {REMEDY}.")
    if found != given:
        raise RunError(f"--algo {given} given, and {path} has the layers of CleanRL's {found}; give --algo {found}.")
