"""A Gymnasium environment to look inside: with the user's labels, if he has some, and its own screen."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.games import LabelledGame
from rl_interp.core.envs.gym.config import GymConfig
from rl_interp.core.envs.gym.game import GymGame
from rl_interp.core.envs.gym.labels import concepts, labels_of
from rl_interp.core.envs.gym.make import line
from rl_interp.core.envs.labelled import Cells
from rl_interp.core.envs.observed import Observed
from rl_interp.core.errors import UserError


class GymLabelled(LabelledGame):
    """Equal to the vector form in every observation. `controllable` is a concept only if the user labels it."""

    game: GymGame
    config: GymConfig

    def __init__(self, config: GymConfig):
        super().__init__(config, GymGame(config))
        self.concepts = concepts(config)

    def labels(self) -> dict[str, float]:
        found = labels_of(self.config, self.game)
        if found.keys() != self.concepts.keys():
            odd = sorted(found.keys() ^ self.concepts.keys())[0]
            raise UserError(f"the label {odd!r} of {self.config.id} is there in some states only; give all in each.")
        return {name: float(value) for name, value in found.items()}

    def replay(
        self, seed: int, actions: Sequence[int] | NDArray[np.integer], steps: Collection[int]
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        if not self.config.spaces.seeded:
            raise UserError(
                f"episodes of {self.config.id} do not follow from their seeds and actions, so recorded ones can't be "
                "played again; let it draw all that is random from self.np_random, and keep nothing between them."
            )
        return super().replay(seed, actions, steps)

    def cells(self) -> Cells:
        return {}

    def render(self) -> NDArray[np.uint8]:
        """What the environment's own renderer draws; without one, pixels that the agent sees.

        Raises:
            UserError: neither is there, or what the renderer gives is no picture.
        """
        env = self.game.env
        if env.render_mode is None:
            return self._seen()
        try:
            screen = env.render()
        except Exception as error:
            raise UserError(f"the renderer of {self.config.id} failed: {line(error)}.") from error
        if isinstance(screen, list) and screen:
            screen = screen[-1]
        if not (isinstance(screen, np.ndarray) and screen.dtype == np.uint8 and screen.shape[2:] == (3,)):
            raise UserError(
                f"the renderer of {self.config.id} gave {_described(screen)}, where uint8 [H, W, 3] is wanted; "
                f"make it with render_mode='rgb_array', not {env.render_mode!r}."
            )
        return screen

    def survey(self) -> tuple[NDArray[np.uint8], Observed]:
        """The screen, and the part of it that the agent sees: where the environment or a wrapper has an attribute
        `observed`, (top, left, bottom, right) in pixels of the screen, that; else all of it."""
        screen, env = self.render(), self.game.env
        if not env.has_wrapper_attr("observed"):
            return screen, self.config.observed(*screen.shape[:2])
        try:
            top, left, bottom, right = map(float, env.get_wrapper_attr("observed"))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"`observed` of {self.config.id} is {env.get_wrapper_attr('observed')!r}; it is (top, left, bottom, "
                "right), in pixels of the screen."
            ) from error
        return screen, Observed(top, left, bottom, right)

    def _seen(self) -> NDArray[np.uint8]:
        if self.config.observation_kind == "pixels":
            return self.config.picture(self._observe())
        modes = self.game.env.metadata.get("render_modes", [])
        raise UserError(
            f"{self.config.id} has no screen to show (its render_modes are {list(modes)}); a film needs rgb_array "
            "among them, and a function that makes the environment must pass render_mode='rgb_array' on."
        )

    def close(self) -> None:
        self.game.close()


def _described(screen: Any) -> str:
    return f"{screen.dtype} {screen.shape}" if isinstance(screen, np.ndarray) else type(screen).__name__
