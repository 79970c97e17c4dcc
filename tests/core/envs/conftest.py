import pytest
from walk import MINE


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with `mine.py`, to work in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path
