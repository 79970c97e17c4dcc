"""Sweeps from the command line, in this process and on a real Ray cluster on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = "--latents 32 --seeds 2 --config.epochs 2 --config.batch-size 128"


def test_a_sweep_compares_sizes_and_seeds_and_is_not_run_twice(run, place):
    command = f"sae sweep tiny {SMALL} --ks 2 --kinds topk jumprelu --episodes 1 --as sweep"
    status, result, error = run(command)
    assert status == 0, error
    rows = result["result"]
    assert [(r["kind"], r["latents"], r["k"], r["seed"]) for r in rows] == [
        ("topk", 32, 2, 0),
        ("topk", 32, 2, 1),
        ("jumprelu", 32, 2, 0),
        ("jumprelu", 32, 2, 1),
    ]
    assert all(row["fvu"] > 0 and 0 < row["stability"] < 1 for row in rows)
    table = Path(result["table"]).read_text()
    assert table.count("\n") == 2 + 2
    assert Path(result["plot"]).stat().st_size > 5_000
    one = Path("runs/sweep/fc.post-jumprelu-32-k2-seed1")
    before = one.joinpath("sae.json").stat().st_mtime_ns
    assert run(command)[1]["result"] == rows
    assert one.joinpath("sae.json").stat().st_mtime_ns == before
    assert run(f"sae evaluate {one} --episodes 1")[0] == 0
    assert run(f"sae report {one} --output {one}/report.html --top 1 --maps 1")[0] == 0


def test_a_sweep_on_ray_gives_what_one_process_gives(run, place):
    pytest.importorskip("ray", reason="the extra `distributed` is not installed")
    # With one thread, as Ray's workers have: more round products otherwise, and so short a fit then goes another way.
    command = [sys.executable, "-m", "rl_interp.app.cli", *f"sae sweep tiny {SMALL} --ks 2 --as here --json".split()]
    alone = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True
    )
    here = json.loads(alone.stdout.splitlines()[-1])["result"]
    status, result, error = run(f"sae sweep tiny {SMALL} --ks 2 --ray local --as there")
    assert status == 0, error
    assert [row["fvu"] for row in result["result"]] == pytest.approx([row["fvu"] for row in here], rel=1e-4)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("sae sweep tiny --seeds 0", "seeds=0 given"),
        ("sae sweep tiny --hooks fc.pre", "is no activation store"),
        ("sae sweep tiny --latents 32 --ks 32", "k=32 given with latents=32"),
        ("sae sweep tiny --latents 32 --ks 2 --ray 127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1'"),
    ],
)
def test_bad_input_gets_one_sentence(run, command, sentence):
    status, _, error = run(command)
    assert status not in (0, None)
    assert sentence.lower() in error.lower()
    assert "Traceback" not in error
