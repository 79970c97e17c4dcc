"""Models that Stable-Baselines3 trained, and what they say of a thousand observations.

`python tests/oracles/published_sb3/record.py`, in an environment with the extra `bench`, records the small ones for
where Stable-Baselines3 is not installed: what `model.save` and `VecNormalize.save` wrote, and what the model said.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.core.envs import AtariConfig, EnvConfig, GymConfig, env_config
from rl_interp.core.envs.gym.make import make
from rl_interp.core.envs.gym.spaces import writer

HERE = Path(__file__).parent
ENVS = 20
"""Environments stepped together where a model has a memory; 50 steps of each are its observations."""
RGB = ("minigrid.wrappers:RGBImgPartialObsWrapper",)
IMAGE = (*RGB, "minigrid.wrappers:ImgObsWrapper")
DICT = (*RGB, "gymnasium.wrappers:FilterObservation(filter_keys=['direction', 'image'])")
ROOM = "MiniGrid-Empty-5x5-v0"
ON_POLICY = {"n_steps": 64, "device": "cpu", "seed": 0, "verbose": 0}
OFF_POLICY = {"learning_starts": 64, "buffer_size": 256, "device": "cpu", "seed": 0, "verbose": 0}
NETS = {"pi": [12], "vf": [8, 10]}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    algorithm: str
    policy: str
    env: str
    settings: Mapping[str, Any]
    wrappers: tuple[str, ...] = ()
    steps: int = 256
    normalise: bool = False
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """`policy_kwargs`."""


RECIPES = {
    "dqn": Recipe("DQN", "MlpPolicy", "CartPole-v1", OFF_POLICY, kwargs={"net_arch": [12]}),
    "qrdqn": Recipe("QRDQN", "MlpPolicy", "CartPole-v1", OFF_POLICY, kwargs={"net_arch": [12], "n_quantiles": 7}),
    "ppo": Recipe("PPO", "MlpPolicy", "CartPole-v1", ON_POLICY, kwargs={"net_arch": NETS}),
    "ppo-normalised": Recipe("PPO", "MlpPolicy", "Acrobot-v1", ON_POLICY, normalise=True, kwargs={"net_arch": NETS}),
    "a2c-gsde": Recipe(
        "A2C", "MlpPolicy", "Pendulum-v1", ON_POLICY | {"n_steps": 5, "use_sde": True}, kwargs={"net_arch": NETS}
    ),
    "recurrent-ppo": Recipe(
        "RecurrentPPO", "MlpLstmPolicy", "CartPole-v1", ON_POLICY, kwargs={"net_arch": NETS, "lstm_hidden_size": 6}
    ),
}
"""Those that are recorded."""
OTHERS = {
    "ppo-one-hot": Recipe("PPO", "MlpPolicy", "FrozenLake-v1", ON_POLICY, kwargs={"net_arch": NETS}),
    "ppo-continuous": Recipe("PPO", "MlpPolicy", "Pendulum-v1", ON_POLICY, kwargs={"net_arch": NETS}),
    "a2c": Recipe("A2C", "MlpPolicy", "CartPole-v1", ON_POLICY | {"n_steps": 5}, kwargs={"net_arch": NETS}),
    "trpo": Recipe("TRPO", "MlpPolicy", "CartPole-v1", ON_POLICY, kwargs={"net_arch": NETS}),
    "dqn-default": Recipe("DQN", "MlpPolicy", "CartPole-v1", OFF_POLICY),
    "ppo-default": Recipe("PPO", "MlpPolicy", "CartPole-v1", ON_POLICY),
    "ppo-elu": Recipe("PPO", "MlpPolicy", "CartPole-v1", ON_POLICY, kwargs={"activation_fn": torch.nn.ELU}),
    "ppo-pixels": Recipe("PPO", "CnnPolicy", ROOM, ON_POLICY, IMAGE, 128),
    "ppo-pixels-without-convolutions": Recipe("PPO", "MlpPolicy", ROOM, ON_POLICY, IMAGE, 128),
    "a2c-pixels-twice": Recipe(
        "A2C", "CnnPolicy", ROOM, ON_POLICY | {"n_steps": 5}, IMAGE, 64, kwargs={"share_features_extractor": False}
    ),
    "dqn-atari": Recipe("DQN", "CnnPolicy", "ALE/Pong-v5", OFF_POLICY, (), 96),
    "ppo-dict": Recipe("PPO", "MultiInputPolicy", ROOM, ON_POLICY, DICT, 128),
    "recurrent-ppo-default": Recipe("RecurrentPPO", "MlpLstmPolicy", "CartPole-v1", ON_POLICY),
    "recurrent-ppo-shared": Recipe(
        "RecurrentPPO", "MlpLstmPolicy", "CartPole-v1", ON_POLICY,
        kwargs={"shared_lstm": True, "enable_critic_lstm": False, "n_lstm_layers": 2},
    ),
    "recurrent-ppo-linear-critic": Recipe(
        "RecurrentPPO", "MlpLstmPolicy", "CartPole-v1", ON_POLICY, kwargs={"enable_critic_lstm": False}
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """A model's files, and what it says of observations as this suite has them, `[T, N, ...]`."""

    env: EnvConfig
    model: Path
    statistics: Path | None
    obs: NDArray[Any]
    first: NDArray[np.bool_]
    actions: NDArray[Any]
    """What `predict` chooses when it is deterministic."""
    preferences: NDArray[np.float32]
    """Q-values, log-probabilities or means."""
    value: NDArray[np.float32] | None
    std: NDArray[np.float32] | None


def config_of(recipe: Recipe) -> EnvConfig:
    return env_config(recipe.env, wrappers=recipe.wrappers)


def train(name: str, folder: Path) -> Said:
    """Train a model of `RECIPES` or `OTHERS`, save it, and ask it."""
    import sb3_contrib
    import stable_baselines3
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    recipe = (RECIPES | OTHERS)[name]
    env = config_of(recipe)
    venv = _atari(env) if isinstance(env, AtariConfig) else DummyVecEnv([lambda: make(env)])  # pyright: ignore
    if recipe.normalise:
        venv = VecNormalize(venv)
    algorithm = getattr(stable_baselines3, recipe.algorithm, None) or getattr(sb3_contrib, recipe.algorithm)
    settings = dict(recipe.settings) | ({"batch_size": 32} if recipe.algorithm not in ("A2C", "TRPO") else {})
    model = algorithm(recipe.policy, venv, policy_kwargs=dict(recipe.kwargs) or None, **settings)
    model.learn(recipe.steps)
    model.save(folder / f"{name}.zip")
    statistics = folder / f"{name}.pkl" if isinstance(venv, VecNormalize) else None
    if isinstance(venv, VecNormalize):
        venv.save(str(statistics))
        venv.training = False
    theirs, ours = _observations(env, venv)
    said = _recurrent(model, theirs) if hasattr(model.policy, "lstm_actor") else _said(model, theirs)
    shaped = {key: value.reshape(-1, ENVS, *value.shape[1:]) for key, value in said.items()}
    ours = ours.reshape(-1, ENVS, *ours.shape[1:])
    whole = {"value": None, "std": None} | shaped
    return Said(env, folder / f"{name}.zip", statistics, ours, first_steps(), **whole)


def load(name: str) -> Said:
    """What was recorded of a model of `RECIPES`."""
    recipe, statistics = RECIPES[name], HERE / f"{name}.pkl"
    with np.load(HERE / f"{name}.npz") as recorded:
        arrays = {"value": None, "std": None} | dict(recorded)
    return Said(config_of(recipe), HERE / f"{name}.zip", statistics if recipe.normalise else None, **arrays)


def first_steps() -> NDArray[np.bool_]:
    """Where episodes begin: everywhere at once, and in one environment every seventh step."""
    first = np.zeros((1000 // ENVS, ENVS), bool)
    first[0], first[::7, 3] = True, True
    return first


def _observations(env: EnvConfig, venv: Any) -> tuple[Any, NDArray[Any]]:
    """A thousand observations of random play, as the model is given them, and as this suite is."""
    from stable_baselines3.common.vec_env import VecNormalize

    venv.seed(3)
    obs, seen = venv.reset(), []
    rng = np.random.default_rng(3)
    venv.action_space.seed(3)
    while len(seen) < 1000:
        seen.append(venv.get_original_obs() if isinstance(venv, VecNormalize) else obs)
        obs = venv.step(np.array([venv.action_space.sample()]))[0]
    rng.shuffle(seen)  # so that the environments of a recurrent model do not see neighbours
    joined = _stacked(seen)
    given = venv.normalize_obs(joined) if isinstance(venv, VecNormalize) else joined
    if not isinstance(env, GymConfig):
        return given, joined.transpose(0, 3, 1, 2)
    write = writer(make(env).observation_space, env.id)
    ours = np.zeros((1000, *env.observation_shape), np.uint8 if env.observation_kind == "pixels" else np.float32)
    for i, out in enumerate(ours):
        write({key: value[i] for key, value in joined.items()} if isinstance(joined, dict) else joined[i], out)
    return given, ours


def _stacked(seen: list[Any]) -> Any:
    if isinstance(seen[0], dict):
        return {key: np.concatenate([each[key] for each in seen]) for key in seen[0]}
    return np.concatenate(seen)


def _said(model: Any, obs: Any) -> dict[str, NDArray[Any]]:
    policy = model.policy
    actions, _ = model.predict(obs, deterministic=True)
    with torch.no_grad():
        given, _ = policy.obs_to_tensor(obs)
        if hasattr(policy, "q_net"):
            return {"actions": actions, "preferences": policy.q_net(given).numpy()}
        if hasattr(policy, "quantile_net"):
            return {"actions": actions, "preferences": policy.quantile_net(given).mean(1).numpy()}
        said = _distribution(policy.get_distribution(given).distribution)
        return said | {"actions": actions, "value": policy.predict_values(given)[:, 0].numpy()}


def _distribution(distribution: Any) -> dict[str, NDArray[Any]]:
    if hasattr(distribution, "logits"):
        return {"preferences": distribution.logits.numpy()}
    return {"preferences": distribution.mean.numpy(), "std": distribution.stddev.numpy()}


def _recurrent(model: Any, obs: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What a model with a memory says, step by step: `predict` of its state, `forward` of the state that it and its
    critic have in training."""
    from sb3_contrib.common.recurrent.type_aliases import RNNStates

    policy, steps = model.policy, len(obs) // ENVS
    layers, _, width = policy.lstm_hidden_state_shape
    both = RNNStates(*((torch.zeros(layers, ENVS, width), torch.zeros(layers, ENVS, width)) for _ in range(2)))
    state, columns = None, {"actions": [], "preferences": [], "value": []}
    for t, now in enumerate(obs.reshape(steps, ENVS, *obs.shape[1:])):
        start = first_steps()[t]
        actions, state = model.predict(now, state, start, deterministic=True)
        columns["actions"].append(actions)
        with torch.no_grad():
            given, starts = torch.from_numpy(now), torch.from_numpy(start).float()
            columns["preferences"].append(
                policy.get_distribution(given, both.pi, starts)[0].distribution.logits.numpy()
            )
            _, value, _, both = policy.forward(given, both, starts, deterministic=True)
            columns["value"].append(value[:, 0].numpy())
    return {name: np.concatenate(values) for name, values in columns.items()}


def _atari(env: EnvConfig) -> Any:
    import ale_py
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    gymnasium.register_envs(ale_py)
    return VecFrameStack(make_atari_env(env.id, seed=0), 4)


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or RECIPES:
        said = train(name, HERE)
        arrays = {key: getattr(said, key) for key in ("obs", "first", "actions", "preferences", "value", "std")}
        np.savez_compressed(HERE / f"{name}.npz", **{key: value for key, value in arrays.items() if value is not None})


if __name__ == "__main__":
    main()
