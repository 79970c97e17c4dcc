"""DreamerV3 beside recordings of the published package 1.5.0 (`make parity` makes them, and larger ones)."""

from pathlib import Path

import numpy as np
import pytest
from published_dreamerv3.compare import compare, limit

RECORDINGS = Path(__file__).parent / "published_dreamerv3"


@pytest.mark.parametrize("kind", ["image", "vector"])
def test_every_part_term_gradient_and_update_is_the_published_one(kind, monkeypatch):
    with np.load(RECORDINGS / f"{kind}.npz") as arrays:
        errors = compare(dict(arrays), "debug", monkeypatch.setattr)
    assert {name.split("/")[0].split()[0] for name in errors} == {"forward", "terms", "behaviour", "gradient", "step"}
    assert not {name: error for name, error in errors.items() if not error <= limit(name)}
