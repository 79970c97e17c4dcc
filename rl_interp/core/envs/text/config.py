"""Conventions of texts."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.envs.text.grammars import GRAMMARS, Grammar, Split
from rl_interp.core.envs.text.tokens import tokens_of
from rl_interp.core.errors import UserError, unknown

PREFIX = "rl_interp/Text-"
TASKS = tuple(GRAMMARS)
NOTHING = -1
"""Where an observation has no word any more."""
_MORE = 4
"""Tokens that a text may have more than words."""


@dataclass(frozen=True)
class TextConfig(EnvConfig):
    """Prompts that a seeded grammar draws: the agent is shown the beginning of a text and says the next word, for a
    reward of 1 if it may follow. That ends the episode.

    An observation is int64 `[S]`, the numbers of the words in the vocabulary, and -1 after the last.
    """

    id: str = f"{PREFIX}induction"
    """rl_interp/Text- and the task: induction, ioi, docstring, greater-than, stories or mixed."""
    split: Split = "training"
    """Which texts: those that are trained on, or those that are held out, of induction and docstring any. Scores are of
    the latter."""
    tokenizer: str = ""
    """A tokenizer.json, of whose tokens texts then are; by default each word of the grammar is one."""

    def __post_init__(self) -> None:
        if self.split not in ("training", "held-out"):
            raise UserError(f"split={self.split!r} given; it is training or held-out.")

    @property
    def grammar(self) -> Grammar:
        """What draws the texts."""
        task = self.id.removeprefix(PREFIX)
        if task not in GRAMMARS or not self.id.startswith(PREFIX):
            raise UserError(unknown("environment", self.id, [PREFIX + name for name in GRAMMARS]))
        return GRAMMARS[task]

    @property
    def action_names(self) -> tuple[str, ...]:
        vocabulary = self.grammar.vocabulary  # an unknown task is refused first
        return tokens_of(self.tokenizer) if self.tokenizer else vocabulary

    @property
    def observation_shape(self) -> tuple[int, ...]:
        more = _MORE if self.tokenizer else -1
        return (self.grammar.length + more,)

    @property
    def observation_kind(self) -> Literal["tokens"]:
        return "tokens"

    @property
    def observation_dtype(self) -> type[np.int64]:
        return np.int64

    @property
    def scored(self) -> "TextConfig":
        return replace(self, split="held-out")
