"""Transcoders from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from rl_interp.analysis.sae.evaluation import play_spliced
from rl_interp.analysis.sae.runs import load_sae

FIT = (
    "sae fit tiny --hook conv3.post --to fc.post --latents 64 --k 4 --epochs 8 --batch-size 128 --episodes 0 "
    "--name across"
)


@pytest.fixture
def fitted(run, place):
    """`runs/across`, from the last convolution to the hidden layer."""
    assert run("collect tiny --hook conv3.post --samples 2400")[0] == 0
    status, result, error = run(FIT)
    assert status == 0, error
    return result


@pytest.mark.full
def test_a_transcoder_is_fitted_measured_and_played_and_refused_where_it_has_no_sense(run, fitted):
    # An agent that hardly learned has one episode held out, which may be unlike the others: there FVU can be above 1.
    assert 0 < fitted["train_fvu"] < 0.9
    assert fitted["fvu"] > 0
    assert 0 < fitted["l0"] <= 4
    assert set(fitted["ablated"]) == {"zero", "mean", "resample"}
    assert all(0 <= each["action_agreement"] <= 1 for each in fitted["ablated"].values())
    assert 0 < fitted["q_nmse"] < fitted["ablated"]["zero"]["q_nmse"]
    assert run(FIT)[1]["fvu"] == fitted["fvu"]  # resumed, with nothing left to do
    opened = load_sae("runs/across")
    assert (opened.hook, opened.target.hook, opened.sae.d_in, opened.sae.d_out) == ("conv3.post", "fc.post", 1568, 512)
    config = json.loads(Path("runs/across/sae_lens/cfg.json").read_text())
    assert config["architecture"] == "topk_transcoder"
    assert config["metadata"]["hook_name_out"] == "fc.post"
    known = {condition: np.array([70.0, 70.0]) for condition in ("original", "mean")}
    played = play_spliced(opened, 2, seed=0, epsilon=0.0, known=known)
    assert set(played["controls"]) == {"original", "spliced", "zero", "mean", "resample"}
    assert run("sae fit tiny --hook conv3.post --latents 32 --k 4 --epochs 1 --episodes 0 --name positions")[0] == 0
    assert "'fc.post' has 1 positions and 'conv3.post' 49" in run("sae compare tiny-sae positions")[2]
    for command in ("report across", "test across", "compare tiny-sae across"):
        status, _, error = run(f"sae {command}")
        assert status == 1
        assert "is a transcoder, from 'conv3.post' to 'fc.post'; this takes an autoencoder" in error


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("sae fit tiny --to fc.post --latents 64 --k 4", "'fc.post' given to be predicted from itself"),
        ("sae fit tiny --to conv1.post --latents 64 --k 4", "is no activation store"),
    ],
)
def test_bad_input_gets_one_sentence(run, command, sentence):
    status, _, error = run(command)
    assert status == 1
    assert sentence in error
    assert "Traceback" not in error
