"""The whole demo on the reference run: slow, and what the README promises."""

import json
from pathlib import Path

import pytest

from rl_interp.app import cli

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_demo_keeps_its_promises(tmp_path, capsys):
    status = cli.main(["demo", "--run", str(ROOT / "runs/dqn-mspacman"), "--output", str(tmp_path / "demo"), "--json"])
    assert status == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["agent"]["mean"] >= 2_000
    assert result["sae"]["dead_fraction"] < 0.02
    assert result["sae"]["return_recovered"] >= 0.9
    assert result["peak_memory_bytes"] < 4 * 2**30
    for path in result["paths"].values():
        assert Path(path).stat().st_size > 100_000
