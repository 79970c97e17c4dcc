"""A user's own Gymnasium vector environment under the suite's convention, whichever way it resets."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

from rl_interp.core.envs.gym.spaces import converter, spaces_of, writer
from rl_interp.core.envs.seeds import episode_seed
from rl_interp.core.envs.vector import Step
from rl_interp.core.errors import UserError


class GymnasiumVector:
    """A `gymnasium.vector.VectorEnv`, such as `SyncVectorEnv` and `AsyncVectorEnv`, as a `VectorEnv`.

    One that resets in the step after (NEXT_STEP) does so here. One that resets at once (SAME_STEP), or leaves it to
    whoever steps it (DISABLED: then those that are done are reset at once), gives an episode's last reward with the
    first observation of the next: such a step is both `done` and `first`.

    Of a `SyncVectorEnv` or `AsyncVectorEnv` that is DISABLED, every episode has a seed of its own, so that episodes of
    equal numbers begin alike whatever was played before; of the others the first episodes alone do.

    Rewards are those that it gives. What wrappers count is not looked at: it stands in `final_info` with SAME_STEP, and
    a reset of some environments makes Gymnasium 1.4's vector wrapper forget its counts of all.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv):
        self.env, self.num_envs = env, env.num_envs
        name = env.spec.id if env.spec else type(env.unwrapped).__name__
        self._spaces = spaces_of(env, name)
        self.observation_shape, self.action_names = self._spaces.shape, self._spaces.actions
        self._mode = _mode(env, name)
        self._write, self._convert = writer(env.single_observation_space, name), converter(env.single_action_space)

    def reset(self, seed: int) -> NDArray[Any]:
        obs, _ = self.env.reset(seed=seed)
        self._seed, self._episode = seed, np.zeros(self.num_envs, np.int64)
        self._ended = np.zeros(self.num_envs, bool)
        self._obs = self._converted(obs)
        return self._obs

    def send(self, actions: NDArray[np.int64] | NDArray[np.float32]) -> None:
        self._sent = self._convert(actions)
        if isinstance(self.env, gymnasium.vector.AsyncVectorEnv):
            self.env.step_async(self._sent)

    def recv(self) -> Step:
        if isinstance(self.env, gymnasium.vector.AsyncVectorEnv):
            obs, reward, terminated, truncated, _ = self.env.step_wait()
        else:
            obs, reward, terminated, truncated, _ = self.env.step(self._sent)
        terminated, truncated = np.array(terminated, bool), np.array(truncated, bool)
        before, self._ended = self._ended, terminated | truncated
        if self._mode is AutoresetMode.DISABLED and self._ended.any():
            obs = self._begun()
        first = before if self._mode is AutoresetMode.NEXT_STEP else self._ended
        self._obs = self._converted(obs)
        return Step(self._obs, np.array(reward, np.float32), terminated, truncated, first, {})

    def _begun(self) -> Any:
        """The observations after those that ended have begun again."""
        self._episode += self._ended
        mask, seeds = {"reset_mask": self._ended.copy()}, None
        if isinstance(self.env.unwrapped, gymnasium.vector.SyncVectorEnv | gymnasium.vector.AsyncVectorEnv):
            seeds = [
                episode_seed(self._seed, i, int(number)) if ended else None
                for i, (number, ended) in enumerate(zip(self._episode, self._ended, strict=True))
            ]  # which others may not take
        return self.env.reset(seed=seeds, options=mask)[0]  # pyright: ignore[reportArgumentType]

    def scene(self) -> NDArray[Any]:
        return self._obs

    def close(self) -> None:
        self.env.close()

    def _converted(self, obs: Any) -> NDArray[Any]:
        space = self.env.single_observation_space
        if isinstance(space, spaces.Box) and self._spaces.observation == "vector":
            return np.array(obs, np.float32).reshape(self.num_envs, *self.observation_shape)
        kind = np.float32 if self._spaces.observation == "vector" else np.uint8
        out = np.empty((self.num_envs, *self.observation_shape), kind)
        for row, each in zip(out, iterate(self.env.observation_space, obs), strict=True):
            self._write(each, row)
        return out


def _mode(env: gymnasium.vector.VectorEnv, name: str) -> AutoresetMode:
    try:
        return AutoresetMode(env.metadata.get("autoreset_mode"))
    except ValueError:
        known = ", ".join(mode.name for mode in AutoresetMode)
        raise UserError(
            f"{name} does not say when it resets what is done; set metadata['autoreset_mode'] to one of Gymnasium's "
            f"AutoresetMode: {known}."
        ) from None
