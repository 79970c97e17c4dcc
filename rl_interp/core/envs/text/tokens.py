"""Texts in the tokens of a language model, by its tokenizer.json."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl_interp.core.envs.text import words as w
from rl_interp.core.envs.text.grammars import START, SYMBOLS
from rl_interp.core.errors import UserError
from rl_interp.core.read import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer  # pyright: ignore[reportMissingImports]

_REMEDY = "give the tokenizer.json that came with the model"


@lru_cache(maxsize=4)
def tokens_of(path: str) -> tuple[str, ...]:
    """All tokens, by number.

    Raises:
        RunError: no such file, or none of a tokenizer.
    """
    described: dict[str, Any] = read_json(Path(path), _REMEDY)
    try:
        numbers = dict(described["model"]["vocab"])
        numbers |= {added["content"]: added["id"] for added in described.get("added_tokens", [])}
        names = {number: name for name, number in numbers.items()}
        return tuple(names.get(number, f"<{number}>") for number in range(max(names) + 1))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no tokenizer's, as it has no vocabulary of words; {_REMEDY}.") from error


@lru_cache(maxsize=4)
def tokenizer_of(path: str) -> "Tokenizer":
    """What cuts texts into tokens.

    Raises:
        UserError: the extra `lm` is not installed, or the file is not a tokenizer's.
    """
    try:
        from tokenizers import Tokenizer  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            "texts are cut into a model's tokens by the package tokenizers; install rl-interp[lm]."
        ) from None
    try:
        return Tokenizer.from_file(path)
    except Exception as error:  # the package raises nothing more special
        raise UserError(f"{path} is no tokenizer's ({error}); {_REMEDY}.") from None


def written(words: tuple[str, ...]) -> str:
    """Words as a text: without the mark at its start, without spaces before commas and full stops, and with words of
    the language for symbols that have no meaning."""
    said = [_MEANINGLESS.get(word, word) for word in words if word != START]
    return " ".join(said).replace(" ,", ",").replace(" .", ".")


def encoded(path: str, words: tuple[str, ...], at_start: bool = True) -> list[int]:
    """The numbers of a text's tokens; of one that goes on from another, after a space."""
    text = written(words)
    return tokenizer_of(path).encode(text if at_start else f" {text}", add_special_tokens=False).ids


def token_of(path: str, word: str) -> int:
    """The number of a word that goes on a text.

    Raises:
        UserError: it is of several tokens, so no single decision says it.
    """
    ids = encoded(path, (word,), at_start=False)
    if len(ids) != 1:
        raise UserError(
            f"{word!r} is {len(ids)} tokens of {path}, and an action is one; choose another task, such as ioi."
        )
    return ids[0]


_MEANINGLESS = dict(zip(SYMBOLS, (*w.PLACES, *w.THINGS, *w.EVENTS, *w.COLORS, *w.TOYS), strict=False))
