"""What Stable-Baselines3 itself computes with a model's weights, where it is installed.

The model is not loaded, which would run what is pickled in it: a policy of the library's own is made from the text of
the settings, for the environment's spaces, and gets the weights.
"""

import re
from collections.abc import Mapping
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl_interp.agents.pretrained.policy import Policy, joint
from rl_interp.agents.pretrained.sb3 import contents, kind_of, readable, settings_of
from rl_interp.agents.pretrained.vec_normalize import Statistics
from rl_interp.core.check_agent import largest_difference
from rl_interp.core.envs import EnvConfig, GymConfig

OBSERVATIONS = 200
"""How many are compared, drawn at random from the environment's space."""
_ALGORITHMS = {
    "dqn": "stable_baselines3:DQN",
    "ppo": "stable_baselines3:PPO",
    "a2c": "stable_baselines3:A2C",
    "qrdqn": "sb3_contrib:QRDQN",
    "trpo": "sb3_contrib:TRPO",
    "recurrent-ppo": "sb3_contrib:RecurrentPPO",
}


@torch.no_grad()
def difference(agent: Policy, model: Path, statistics: Statistics | None) -> float | None:
    """The largest absolute difference between a policy's preferences and values and those that Stable-Baselines3
    computes; None where it, or its contrib package, is needed and not installed."""
    package, _, name = _ALGORITHMS[agent.config.algorithm].partition(":")
    try:
        aliases = getattr(import_module(package), name).policy_aliases
    except ImportError:
        return None
    env = agent.config.env
    observations, actions = _spaces(env)
    policy = _policy(aliases, *contents(model), observations, actions)
    observations.seed(0)
    seen = [observations.sample() for _ in range(OBSERVATIONS)]
    out = agent.step(torch.from_numpy(_ours(seen, observations, env)), agent.initial_state(OBSERVATIONS))
    preferences, value = _said(policy, policy.obs_to_tensor(_normalised(seen, statistics))[0])
    ours = out.preferences if out.logits is None else out.logits.log_softmax(-1)
    if out.value is None or value is None:
        return largest_difference(ours, preferences)
    return max(largest_difference(ours, preferences), largest_difference(out.value, value))


def _policy(
    aliases: Mapping[str, Any], data: Mapping[str, Any], weights: Mapping[str, Tensor], observations: Any, actions: Any
) -> Any:
    """The library's own policy with a model's weights."""
    layers = import_module("stable_baselines3.common.torch_layers")
    settings = {name: value for name, value in settings_of(data).items() if not name.startswith("optimizer")}
    for name, place in (("activation_fn", nn), ("features_extractor_class", layers)):
        if name in settings:
            settings[name] = getattr(place, settings[name].rpartition(".")[2].removesuffix("'>"))
    if data.get("use_sde"):
        settings["use_sde"] = True
    images = any(re.search(r"features_extractor\.cnn\.0", name) for name in weights)
    kind = "Cnn" if images else "MultiInput" if kind_of(readable(data, "observation_space")) == "Dict" else "Mlp"
    make = next(each for alias, each in aliases.items() if alias.startswith(kind))
    policy = make(_channels_first(observations), actions, lambda _: 0.0, **settings)
    policy.load_state_dict(weights)
    policy.set_training_mode(False)
    return policy


def _spaces(env: EnvConfig) -> tuple[Any, Any]:
    """Of observations and actions."""
    from gymnasium import spaces

    if isinstance(env, GymConfig):
        from rl_interp.core.envs.gym.make import make

        with closing(make(env)) as made:
            return made.observation_space, made.action_space
    return spaces.Box(0, 255, env.observation_shape, np.uint8), spaces.Discrete(len(env.action_names))


def _channels_first(space: Any) -> Any:
    """A space of observations as the library's policies get it, with the channels of images first."""
    from gymnasium import spaces

    preprocessing = import_module("stable_baselines3.common.preprocessing")
    transposing = import_module("stable_baselines3.common.vec_env").VecTransposeImage
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _channels_first(each) for key, each in space.spaces.items()})
    turned = preprocessing.is_image_space(space) and not preprocessing.is_image_space_channels_first(space)
    return transposing.transpose_space(space) if turned else space


def _ours(seen: list[Any], space: Any, env: EnvConfig) -> NDArray[Any]:
    """Observations as the suite has them."""
    if not isinstance(env, GymConfig):
        return np.stack(seen)
    from rl_interp.core.envs.gym.spaces import writer

    write = writer(space, env.id)
    obs = np.zeros((len(seen), *env.observation_shape), np.float32 if env.observation_kind == "vector" else np.uint8)
    for one, out in zip(seen, obs, strict=True):
        write(one, out)
    return obs


def _normalised(seen: list[Any], statistics: Statistics | None) -> Any:
    """Observations `[N, ...]` as the library has them, as its `VecNormalize` would give them to a policy."""
    by_key = [one if isinstance(one, dict) else {"": one} for one in seen]
    columns = {key: np.stack([one[key] for one in by_key]) for key in by_key[0]}
    for key in statistics.mean if statistics else ():
        assert statistics is not None
        shape = columns[key].shape
        scaled = (columns[key].reshape(len(seen), -1) - statistics.mean[key].numpy()) / statistics.std[key].numpy()
        columns[key] = scaled.clip(-statistics.clip, statistics.clip).reshape(shape).astype(np.float32)
    return columns.get("", columns)


def _said(policy: Any, obs: Any) -> tuple[Tensor, Tensor | None]:
    """A policy's Q-values, log-probabilities or means, and values."""
    if hasattr(policy, "q_net"):
        return policy.q_net(obs), None
    if hasattr(policy, "quantile_net"):
        return policy.quantile_net(obs).mean(1), None
    memory = ()
    if hasattr(policy, "lstm_actor"):
        layers, _, width = policy.lstm_hidden_state_shape
        state = (torch.zeros(layers, OBSERVATIONS, width),) * 2
        memory = (state, torch.zeros(OBSERVATIONS))
    found = policy.get_distribution(obs, *memory)
    said = (found[0] if memory else found).distribution
    values = policy.predict_values(obs, *memory)[:, 0]
    if isinstance(said, list):  # of several choices at once
        sizes = [one.logits.shape[-1] for one in said]
        return joint(torch.cat([one.logits for one in said], -1), sizes), values
    return (said.logits if hasattr(said, "logits") else said.mean), values
