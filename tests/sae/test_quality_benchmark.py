"""What the benchmark of quality keeps of earlier measurements."""

from pathlib import Path

import pytest

from benchmarks import sae_quality

CELL = {"width": 64, "times": 4, "kind": "plain", "seed": 0}


def test_measuring_a_cell_again_keeps_the_peers_that_were_not():
    before = [CELL | {"ours": 1, "sparsify": 2, "saelens": 3}, CELL | {"width": 256, "ours": 4}]
    again = sae_quality.added(before, CELL | {"ours": 5, "saelens": 6})
    assert again == [CELL | {"ours": 5, "sparsify": 2, "saelens": 6}, before[1]]
    assert sae_quality.added(again, CELL | {"seed": 1})[1] == CELL | {"seed": 1}


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(sae_quality, "python_of", lambda name: Path("nowhere", name))
    for name in ("planted", "ours"):
        monkeypatch.setattr(sae_quality, name, lambda *given: {})
    row = sae_quality.measure(sae_quality.Cell(64, 4, "plain"), ["sparsify"], 0)
    assert "sparsify" not in row
    assert "sparsify is left out: it has no nowhere/sparsify" in capsys.readouterr().out
