"""Which parameters of a test `make test` tries, and which `make test-all` alone."""

from typing import Any

import pytest


def in_full(*values: Any) -> list[Any]:
    """Parameters, or tuples of them, that are tried by `make test-all` alone: `[0, *in_full(1, 2)]`."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.full) for value in values
    ]


def in_slow(*values: Any) -> list[Any]:
    """The same by `make test-slow` alone."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def mostly_in_full(values: Any, quick: Any) -> list[Any]:
    """All parameters in their order, of which `make test` tries those that are among `quick`."""
    return [each for value in values for each in ([value] if value in quick else in_full(value))]
