"""Wrappers as the user names them, and what is known of Gymnasium's own."""

import ast
from typing import Any

from rl_interp.core.errors import UserError

_HARMLESS = {
    "AddRenderObservation", "AtariPreprocessing", "ClipAction", "ClipReward", "DelayObservation", "DiscretizeAction",
    "DiscretizeObservation", "DtypeObservation", "FilterObservation", "FlattenObservation", "FrameStackObservation",
    "GrayscaleObservation", "MaxAndSkipObservation", "RepeatAction",
    "RescaleAction", "RescaleObservation", "ReshapeObservation", "ResizeObservation", "StickyAction",
    "TimeAwareObservation", "TimeLimit",
}  # fmt: skip
"""Gymnasium's wrappers that are no code of the user's: they neither call what they are given nor write files."""
_NORMALISING = {"NormalizeObservation", "NormalizeReward"}
"""Gymnasium's wrappers whose statistics no checkpoint has, and every copy of an environment makes its own."""


def wrapper(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """What `module:name`, `module.name` or `module:name(2, key="value")` says: the reference and its arguments.

    Raises:
        UserError: it is of another form.
    """
    name, bracket, _ = text.partition("(")
    where, colon, function = name.rpartition(":") if ":" in name else name.rpartition(".")
    try:
        call = ast.parse(f"f{text[len(name) :]}" if bracket else "f()", mode="eval").body
        if not isinstance(call, ast.Call) or not colon:
            raise ValueError
        values = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
        return f"{where}:{function}", [ast.literal_eval(each) for each in call.args], values
    except (SyntaxError, ValueError):
        raise UserError(
            f"{text!r} given as a wrapper; name a class, as in gymnasium.wrappers:FlattenObservation, or one with "
            'plain settings, as in "gymnasium.wrappers:ResizeObservation(shape=(84, 84))".'
        ) from None


def is_harmless(wrapper_reference: str) -> bool:
    """Whether a wrapper is one of Gymnasium's that do nothing but wrap."""
    where, _, name = wrapper_reference.partition(":")
    return where == "gymnasium.wrappers" and name in _HARMLESS


def normalises(wrapper_reference: str) -> bool:
    """Whether a wrapper is one of Gymnasium's that scale by what they have seen."""
    return _is_gymnasiums(wrapper_reference, _NORMALISING)


def clips_rewards(wrapper_reference: str) -> bool:
    """Whether a wrapper is Gymnasium's that clips rewards."""
    return _is_gymnasiums(wrapper_reference, {"ClipReward"})


def _is_gymnasiums(wrapper_reference: str, names: set[str]) -> bool:
    """Whether it is one of these, also where it is named by the module that defines it."""
    where, _, name = wrapper_reference.partition(":")
    return name in names and f"{where}.".startswith("gymnasium.wrappers.")
