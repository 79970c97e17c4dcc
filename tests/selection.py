"""Which parameters of a test `make test` tries, and which `make test-all` alone."""

from typing import Any

import pytest


def in_full(*values: Any) -> list[Any]:
    """Parameters, or tuples of them, that are tried by `make test-all` alone: `[0, *in_full(1, 2)]`."""
    return _marked(values, pytest.mark.full)


def in_slow(*values: Any) -> list[Any]:
    """The same by `make test-slow` alone."""
    return _marked(values, pytest.mark.slow)


def mostly_in_full(values: Any, quick: Any) -> list[Any]:
    """All parameters in their order, of which `make test` tries those that are among `quick`."""
    return [each for value in values for each in ([value] if value in quick else in_full(value))]


def _marked(values: Any, mark: pytest.MarkDecorator) -> list[Any]:
    return [pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=mark) for value in values]
