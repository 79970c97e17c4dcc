"""Sweeps from the command line, in this process and on a real Ray cluster on this machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from rl_interp.analysis.sae.evaluation import RECOVERED
from rl_interp.analysis.sae.sweep import _is_evaluated, markdown
from rl_interp.core.files import write_json
from rl_interp.core.run import Run
from rl_interp.sae import SAEConfig, TopK

SMALL = "--latents 32 --seeds 2 --config.epochs 2 --config.batch-size 128"


@pytest.mark.full
def test_a_sweep_compares_sizes_and_seeds_and_is_not_run_twice(run, place):
    command = f"sae sweep tiny {SMALL} --ks 2 --variants topk jumprelu --episodes 1 --as sweep"
    status, result, error = run(command)
    assert status == 0, error
    rows = result["result"]
    assert [(r["variant"], r["latents"], r["k"], r["seed"]) for r in rows] == [
        ("topk", 32, 2, 0),
        ("topk", 32, 2, 1),
        ("jumprelu", 32, 2, 0),
        ("jumprelu", 32, 2, 1),
    ]
    assert all(row["fvu"] > 0 and set(row["controls"]) == {"original", "spliced", *RECOVERED.values()} for row in rows)
    for pair in (rows[:2], rows[2:]):  # the decoder before whitening is folded in; two epochs
        states = [Run.open(row["run"]).load_state() for row in pair]
        first, second = (
            state["variant"]["decoder"][state["silent"] < state["samples"] / 2].numpy() for state in states
        )
        cosines = first @ second.T
        matched = cosines[linear_sum_assignment(-cosines)].mean()
        assert [row["stability"] for row in pair] == pytest.approx([matched, matched], rel=1e-3)
        assert 0 < pair[0]["stability_of_random"] < pair[0]["stability_of_samples"] < 1
    table = Path(result["table"]).read_text()
    assert table.count("\n") == 2 + 2
    assert "| stability | of samples | of random directions |" in table
    assert Path(result["plot"]).stat().st_size > 5_000
    one = Path("runs/sweep/fc.post-jumprelu-32-k2-seed1")
    before = one.joinpath("sae.json").stat().st_mtime_ns
    assert run(command)[1]["result"] == rows
    assert one.joinpath("sae.json").stat().st_mtime_ns == before
    status, _, error = run(command.replace("epochs 2", "epochs 3"))
    assert status == 1, "what other flags have fitted is not taken for it"
    assert "already holds a fit of which epochs is 2.0, not 3.0 as given; give" in error
    assert run(f"sae report {one} --output {one}/report.html --top 1 --maps 1")[0] == 0


@pytest.mark.parametrize("episodes", [0, 2])
def test_figures_of_a_fit_that_was_begun_anew_are_not_taken_for_the_new_ones(tmp_path, episodes):
    config, parent = SAEConfig(latents=8, k=2), {"run": "r", "step": 1, "hook": "fc.post", "store": "s"}
    run = Run.create(tmp_path / "fit", "sae", config, 0, parent)
    run.save_checkpoint(5, TopK(4, 8, 2).state_dict())
    digest = run.weights_sha256(5)
    figures = {"fvu": 0.1, "l0": 2.0, "dead_fraction": 0.0, "returns": {"original": [1.0] * episodes}}
    for made_from, measured in (
        ({}, True),  # an earlier version's
        ({"made_from": {"dictionary_sha256": digest}}, True),
        ({"made_from": {"dictionary_sha256": "0" * 64}}, False),
    ):
        write_json(run.path / "sae.json", figures | made_from)
        assert _is_evaluated(run.path, config, parent, episodes) == measured


def test_the_tables_interval_is_of_the_mean_over_seeds_which_differ():
    rng, found = np.random.default_rng(0), []
    returns = {"original": [1.0] * 30, "zero": [0.0] * 30, "mean": [0.2] * 30, "resample": [-1.0] * 30}
    for seed in range(16):
        spliced = rng.normal(rng.normal(0.8, 0.3), 1.0, 30)
        row = {"hook": "fc.post", "variant": "topk", "latents": 8, "k": 2, "seed": seed, "fvu": 0.1}
        for name, ablation in RECOVERED.items():
            ablated = returns[ablation][0]
            row[name] = (spliced.mean() - ablated) / (1 - ablated)
        found.append(row | {"returns": returns | {"spliced": spliced.tolist()}})
    cells = [cell.strip() for cell in markdown(found).splitlines()[2].split("|")]
    assert cells[5:7] == ["16", "0.1"]
    every = np.array([row["returns"]["spliced"] for row in found])
    # A seed that is drawn twice brings the same episodes twice.
    error = np.sqrt(every.mean(1).var() / 16 + (2 - 1 / 16) * (every.var(1) / 30).mean() / 16)
    for cell, ablated in zip(cells[7:10], (0, 0.2, -1), strict=True):
        value, low, high = map(float, re.findall(r"-?[\d.]+", cell))
        assert value == pytest.approx((every.mean() - ablated) / (1 - ablated), abs=0.01)
        assert (value - low, high - value) == pytest.approx([1.96 * error / (1 - ablated)] * 2, abs=0.02)


@pytest.mark.slow
def test_a_sweep_on_ray_gives_what_one_process_gives(run, place):
    pytest.importorskip("ray", reason="the extra `distributed` is not installed")
    # With one thread, as Ray's workers have: more round products otherwise, and so short a fit then goes another way.
    command = [sys.executable, "-m", "rl_interp.app.cli", *f"sae sweep tiny {SMALL} --ks 2 --name here --json".split()]
    alone = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True
    )
    here = json.loads(alone.stdout.splitlines()[-1])["result"]
    status, result, error = run(f"sae sweep tiny {SMALL} --ks 2 --ray local --name there")
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
