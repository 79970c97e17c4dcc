"""The bonus: rare states and rare changes are rewarded."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rl_interp.agents.cbet.counts import CountTable, ExactKey, SimHash
from rl_interp.core.envs import EnvConfig
from rl_interp.core.errors import UserError


@dataclass(frozen=True)
class CBETConfig:
    """How states and changes are counted, and how large the bonus for them is."""

    coefficient: float = 0.005
    """Factor of the bonus."""
    form: Literal["sum", "root"] = "sum"
    """`sum`: coefficient / (N(s') + N(c)), the paper's; `root`: coefficient / sqrt(N(s') · N(c))."""
    key: Literal["exact", "simhash"] = "exact"
    """Which observations count as the same: equal ones, or those with the same SimHash."""
    bits: int = 32
    """Length of a SimHash."""
    shared: bool = True
    """Whether all actors share one table, or each has its own."""
    width: int = 1 << 20
    """Counters per row of a table, which has four rows of 4-byte counters: 16 MiB a table, however much is seen."""
    # In pre-training nothing else keeps the bonus from vanishing; 0.001 in the paper, where an actor has one
    # environment. Drawn for each of many, counts would last each of them too short a time to tell what is rare.
    reset_probability: float = 0.0
    """Probability, each time all environments take a step, that a table is cleared, states and changes separately; for
    pre-training."""

    def __post_init__(self) -> None:
        if not 0 <= self.coefficient < inf:
            raise UserError(f"coefficient={self.coefficient} given; it must be at least 0 and finite.")
        if not 0 <= self.reset_probability <= 1:
            raise UserError(f"reset_probability={self.reset_probability} given; it is a probability.")
        if not 1 <= self.bits <= 64:
            raise UserError(f"bits={self.bits} given; a SimHash has 1 to 64.")
        if self.width < 1 or self.width & (self.width - 1):
            raise UserError(f"width={self.width} given; it must be a power of two.")
        for name, known in (("form", ("sum", "root")), ("key", ("exact", "simhash"))):
            if getattr(self, name) not in known:
                raise UserError(f"{name}={getattr(self, name)!r} given; it is one of {', '.join(known)}.")


def default_bonus(env: EnvConfig, pretrain: bool = False) -> CBETConfig:
    """Where the same observations come again they are counted as they are, as the paper does in MiniGrid; elsewhere by
    their SimHash, as it does in Habitat, since hardly any would be counted twice. In pre-training counts are reset at
    random, as often as there in the eyes of one environment, though what all have seen is counted together."""
    return CBETConfig(
        key="exact" if env.observations_recur else "simhash", reset_probability=0.001 if pretrain else 0.0
    )


class CBET:
    """The counts of N environments, in one table for states and one for changes, and the bonus of each step.

    Args:
        state_shape: of the egocentric observation s.
        scene_shape: of the scene whose changes count: in MiniGrid the panorama, of Atari the newest frame, elsewhere
            the observation.
        seed: of the hashes and of the resets.
    """

    def __init__(
        self, config: CBETConfig, num_envs: int, state_shape: tuple[int, ...], scene_shape: tuple[int, ...], seed: int
    ):
        self.config, self.num_envs = config, num_envs
        hashes, resets = np.random.SeedSequence(seed).spawn(2)
        state_seed, change_seed = (int(word) for word in hashes.generate_state(2, np.uint64))
        self._state_key = _key(config, int(np.prod(state_shape)), state_seed)
        self._change_key = _key(config, int(np.prod(scene_shape)), change_seed)
        self._rng = np.random.default_rng(resets)
        self.states, self.changes = CountTable(config.width), CountTable(config.width)

    def __call__(
        self,
        states: NDArray[np.number],
        scenes_before: NDArray[np.number],
        scenes: NDArray[np.number],
        first: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        """The bonus `[N]` of one step in every environment; it counts what the step led to.

        Args:
            states: s', `[N, *state_shape]`.
            scenes_before: scenes that the step started from, `[N, *scene_shape]`.
            scenes: scenes that it led to.
            first: `[N]`, whether the step only reset its environment: no change happened there, so nothing is
                counted and the bonus is 0.
        """
        self._clear_at_random()
        bonus = np.zeros(self.num_envs, np.float32)
        real = np.flatnonzero(~first)
        if not len(real):
            return bonus
        # Signed and wide enough: differences of bytes would wrap around, and different changes would be equal.
        signed = np.float32 if scenes.dtype == np.float32 else np.int16
        change = scenes[real].astype(signed) - scenes_before[real].astype(signed)
        state_keys, change_keys = self._state_key(states[real]), self._change_key(change)
        n_states = self.states.add(state_keys).astype(np.float64)
        n_changes = self.changes.add(change_keys).astype(np.float64)
        seen = n_states + n_changes if self.config.form == "sum" else np.sqrt(n_states * n_changes)
        bonus[real] = self.config.coefficient / seen
        return bonus

    def _clear_at_random(self) -> None:
        if not self.config.reset_probability:
            return
        for table in (self.states, self.changes):
            if self._rng.random() < self.config.reset_probability:
                table.clear()

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs; the hashes follow from the seed."""
        return {
            "states": self.states.state(),
            "changes": self.changes.state(),
            "rng": self._rng.bit_generator.state,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.states.restore(state["states"])
        self.changes.restore(state["changes"])
        self._rng.bit_generator.state = state["rng"]


def _key(config: CBETConfig, size: int, seed: int) -> ExactKey | SimHash:
    return ExactKey(size, seed) if config.key == "exact" else SimHash(size, seed, config.bits)
