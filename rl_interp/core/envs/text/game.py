"""A text that breaks off, as a game of one move."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.games import GameVector, LabelledGame
from rl_interp.core.envs.labelled import Cells, Concept
from rl_interp.core.envs.text.config import NOTHING, TextConfig
from rl_interp.core.envs.text.grammars import Prompt
from rl_interp.core.envs.text.tokens import encoded, token_of
from rl_interp.core.errors import UserError


class Reader:
    """Words to numbers and back."""

    def __init__(self, config: TextConfig):
        self.config = config
        self.words = config.action_names
        self._numbers = {word: number for number, word in enumerate(self.words)}

    def numbers(self, words: Sequence[str]) -> list[int]:
        """The numbers of a text's words in the vocabulary.

        Raises:
            UserError: a word that is not in it.
        """
        if self.config.tokenizer:
            return encoded(self.config.tokenizer, tuple(words))
        for word in words:
            if word not in self._numbers:
                raise UserError(f"{word!r} given, which is not among the {len(self.words)} words of {self.config.id}.")
        return [self._numbers[word] for word in words]

    def number(self, word: str) -> int:
        """The number of a word that goes on a text: the action that says it.

        Raises:
            UserError: it is not in the vocabulary.
        """
        return token_of(self.config.tokenizer, word) if self.config.tokenizer else self.numbers([word])[0]

    def observation(self, words: Sequence[str]) -> NDArray[np.int64]:
        """int64 `[S]`: a beginning as it is shown.

        Raises:
            UserError: more words than are shown, or one that is not in the vocabulary.
        """
        shape, numbers = self.config.observation_shape, self.numbers(words)
        if not 1 <= len(numbers) <= shape[0]:
            raise UserError(f"a prompt of {len(numbers)} words given; {self.config.id} shows 1 to {shape[0]}.")
        obs = np.full(shape, NOTHING, np.int64)
        obs[: len(numbers)] = numbers
        return obs


class TextGame:
    """One text as a `Game`."""

    prompt: Prompt

    def __init__(self, config: TextConfig):
        self.config, self.reader = config, Reader(config)

    def reset(self, seed: int) -> None:
        self.prompt = self.config.grammar.prompt(np.random.default_rng(seed), self.config.split)

    def step(self, action: int) -> tuple[float, bool, bool]:
        return float(action in map(self.reader.number, self.prompt.right)), True, False

    def observe(self, out: NDArray[np.int64]) -> None:
        out[:] = self.reader.observation(self.prompt.words)

    def scene(self, out: NDArray[np.int64]) -> None:
        self.observe(out)

    def info(self) -> Mapping[str, Any]:
        return {}


def make_vector(config: TextConfig, num_envs: int, workers: int = 0) -> GameVector:
    """In this process whatever `workers` says: a prompt is drawn in microseconds."""
    return GameVector(config, [TextGame(config) for _ in range(num_envs)])


class TextLabelled(LabelledGame):
    """One text, equal to its vector form."""

    config: TextConfig
    game: TextGame

    def __init__(self, config: TextConfig):
        super().__init__(config, TextGame(config))

    @cached_property
    def concepts(self) -> Mapping[str, Concept]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return {name: Concept(meaning) for name, meaning in self.config.grammar.concepts.items()}

    @property
    def prompt(self) -> Prompt:
        """What is shown, and what may follow."""
        return self.game.prompt

    def corrupted(self) -> NDArray[np.int64]:
        """The observation of the prompt's twin."""
        return self.game.reader.observation(self.prompt.twin)

    def labels(self) -> dict[str, float]:
        return dict(self.prompt.labels)

    def cells(self) -> Cells:
        return {}

    def render(self) -> NDArray[np.uint8]:
        """The words, on a white picture."""
        import cv2

        lines = [" ".join(self.prompt.words[at : at + 8]) for at in range(0, len(self.prompt.words), 8)]
        picture = np.full((28 * len(lines) + 20, 640, 3), 255, np.uint8)
        for row, line in enumerate(lines):
            cv2.putText(picture, line, (10, 28 * row + 30), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
        return picture
