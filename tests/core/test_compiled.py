"""Compiled loops work where Numba finds no place for its cache."""

from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core import caching

from rl_interp.core.compiled import compiled

ROOT = Path(__file__).parents[2]
NOWHERE = """
from numba.core.caching import _CacheLocator
def refuse(self):
    raise PermissionError("read-only")
_CacheLocator.ensure_cache_path = refuse
"""


def added(values):
    total = 0
    for value in values:
        total += value
    return total


def only_under(place: Path):
    """What Numba asks before it chooses a place: whether it may write there."""

    def ensure(self):
        if not Path(self.get_cache_path()).is_relative_to(place):
            raise PermissionError(f"{self.get_cache_path()} is read-only")
        Path(self.get_cache_path()).mkdir(parents=True, exist_ok=True)

    return ensure


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The only directory that can be written to, as the system's temporary one."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", only_under(tmp_path))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    return tmp_path


def test_the_cache_goes_to_a_directory_of_ones_own(temporary):
    assert compiled()(added)(np.arange(5)) == 10
    (own,) = temporary.iterdir()
    assert own.stat().st_mode & 0o077 == 0
    assert list(own.rglob("*.nbc"))


def test_a_directory_that_others_can_write_to_is_not_used(temporary):
    """What is read from a cache is executed."""
    compiled()(added)
    (own,) = temporary.iterdir()
    own.chmod(0o777)
    numba.config.CACHE_DIR = ""
    assert compiled()(added)(np.arange(5)) == 10
    assert not list(own.rglob("*.nbc"))


def test_without_any_place_the_command_line_starts(program):
    code = f"{NOWHERE}\nimport sys, rl_interp.agents.max_pool, rl_interp.sae.training.kernels.loops\n"
    code += "from rl_interp.app.cli import main\n"
    code += "sys.argv = ['rl-interp', '--help']\nmain()"
    done = program(code)
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


def test_loops_are_compiled_in_one_place():
    folders = ("rl_interp", "agents", "sae", "saliency")
    texts = {path: path.read_text("utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert [path.name for path, text in texts.items() if "njit" in text] == ["compiled.py"]
