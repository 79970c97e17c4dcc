"""Fitting into runs: killed at a bad moment, gone on with, and how fast that is said to be."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rl_interp.agents.load import load_agent
from rl_interp.analysis.sae import fitting, runs
from rl_interp.analysis.sae.concepts import labelled
from rl_interp.analysis.sae.evaluation import coverage_json
from rl_interp.analysis.sae.hypotheses import evaluate_hypotheses
from rl_interp.analysis.sae.report import build
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.run import Run
from rl_interp.core.store import ActivationStore, StoreWriter
from rl_interp.sae import SAEConfig

SMALL = SAEConfig(latents=32, k=2, epochs=10, batch_size=128)


def fit(*names: str) -> tuple[int, float]:
    """Fits `runs/<name>`, whose last digit is the seed."""
    configs = {Path("runs", name): SAEConfig(**{**vars(SMALL), "seed": int(name[-1])}) for name in names}
    return fitting.fit_runs(load_agent("tiny"), ActivationStore(Path("runs/tiny/activations/fc.post")), configs)


def test_what_the_agent_decides_counts_where_nothing_else_is_said(home, monkeypatch):
    """And the states that it is measured in are played once for an agent and a layer."""
    assert Run.open("tiny-sae").config["policy_weight"] == 1
    monkeypatch.setattr("rl_interp.analysis.sae.policy.play_states", None)
    fit("weighed0")
    assert Run.open("weighed0").config["policy_weight"] == 1
    (kept,) = Path("runs/tiny/analyses/policy/fc.post").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-8])
    with pytest.raises(RunError, match=r"policy/fc.post/.*; remove it, to have it measured again"):
        fit("damaged0")
    kept.write_bytes(whole)
    monkeypatch.setattr("rl_interp.analysis.sae.policy.STATES", 8)  # other states, which can't be played
    with pytest.raises(TypeError):
        fit("unplayed0")


def test_a_layer_that_decides_nothing_is_fitted_for_its_activations(home, monkeypatch):
    said = []
    monkeypatch.setattr(fitting, "metric_of", lambda *given: torch.zeros(512, 512))
    store, config = ActivationStore(Path("runs/tiny/activations/fc.post")), replace(SMALL, epochs=1)
    progress = SimpleNamespace(note=said.append)
    weighed, metric = fitting._weighed(load_agent("tiny"), store, {Path("runs/idle0"): config}, progress)
    assert metric is None
    assert weighed[Path("runs/idle0")].policy_weight == 0
    (sentence,) = said
    assert sentence.startswith("fc.post is fitted for its activations alone, without a policy_weight: the agent's ")


def steps(name: str) -> list[int]:
    return [line["step"] for line in Run.open(name).metrics()]


@pytest.fixture
def ticks(monkeypatch):
    """A clock that moves by one each time that it is looked at, which is once an update."""
    clock = SimpleNamespace(now=0)

    def tick() -> int:
        clock.now += 1
        return clock.now

    monkeypatch.setattr(fitting, "time", SimpleNamespace(perf_counter=tick))
    return clock


@pytest.fixture
def killed_after(monkeypatch):
    """`killed_after(n, call)`: the process ends in the middle of `call`, right after the n-th checkpoint."""

    def call(count: int, function) -> None:
        left, save = itertools.count(count - 1, -1), fitting._save

        def last(*arguments) -> None:
            save(*arguments)
            if not next(left):
                raise SystemExit(137)

        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(fitting, "_save", last)
            function()

    return call


@pytest.mark.full
def test_fits_killed_between_two_checkpoints_go_on_with_others_as_if_nothing_had_happened(
    place, ticks, killed_after, monkeypatch
):
    fit("whole0", "whole1")
    monkeypatch.setattr(fitting, "SAVE_EVERY", 10)
    killed_after(3, lambda: fit("killed0", "killed1"))
    first, second = (Run.open(name).checkpoint_steps() for name in ("killed0", "killed1"))
    assert 0 < second[-1] < first[-1] == steps("killed1")[-1]
    fit("killed0", "killed1", "added2")
    total = steps("whole0")[-1]
    assert steps("killed0") == steps("killed1") == steps("added2") == list(range(1, total + 1))
    assert Run.open("killed1").checkpoint_steps() == [total]
    for seed in "01":
        weights = Run.open(f"whole{seed}").load_weights()
        gone_on = Run.open(f"killed{seed}").load_weights()
        assert all(torch.equal(weights[name], gone_on[name]) for name in weights)


def test_fits_whose_whitening_differs_are_not_gone_on_with_together(place, ticks, killed_after, monkeypatch):
    monkeypatch.setattr(fitting, "SAVE_EVERY", 10)
    killed_after(2, lambda: fit("killed0", "killed1"))
    load = Run.load_state

    def as_elsewhere(run, step=None):
        state = load(run, step)
        if run.path.name == "killed1":
            state["feed"]["whitenings"][0]["to"] *= -1  # as another machine's components may be
        return state

    monkeypatch.setattr(Run, "load_state", as_elsewhere)
    with pytest.raises(RunError, match="begun on machines whose whitening differs"):
        fit("killed0", "killed1")


def test_a_fit_killed_before_its_first_checkpoint_logs_no_figure_twice(place, ticks, monkeypatch):
    log = Run.log

    def killed(run, step, values) -> None:
        log(run, step, values)
        if step == 7:
            raise SystemExit(137)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Run, "log", killed)
        fit("killed0")
    assert steps("killed0") == list(range(1, 8))
    fit("killed0")
    assert steps("killed0") == list(range(1, steps("killed0")[-1] + 1))


@pytest.mark.slow
def test_a_store_or_an_agent_that_was_replaced_under_a_dictionary_is_noticed(place, run):
    """By a fit that would go on from it, by whatever opens it, and by a report of what was measured before."""
    command = "sae fit tiny --latents 64 --k 4 --epochs 1 --batch-size 128 --episodes 0 --name mine"
    assert run(command)[0] == 0
    assert "warning" not in run("sae evaluate mine --episodes 1")[2]
    parent = Run.open("mine").meta["parent"]
    assert parent["weights_sha256"] == load_agent("tiny").weights_sha256
    assert run("collect tiny --samples 1200 --seed 5")[0] == 0
    status, _, error = run(command)
    assert status == 1
    assert "already holds a fit to what" in error
    assert "activations/fc.post was before it was replaced" in error
    _, _, error = run("sae test mine --count 1 --states 64")
    assert "warning: runs/tiny/activations/fc.post is not what runs/mine was fitted to: it was replaced" in error
    runs.load_sae("mine")
    assert parent["store_sha256"] == Run.open("mine").meta["parent"]["store_sha256"]
    tiny = Run.open("tiny")
    weights = tiny.load_weights()
    tiny.save_checkpoint(600, {name: value + 1 for name, value in weights.items()})
    _, _, error = run("sae report mine --top 1 --clips 0 --maps 0")
    assert "warning: runs/tiny is not what runs/mine was fitted to" in error
    assert "evaluation.json is left out: it is of a different dictionary, agent or activations" in error


def test_a_fit_is_not_gone_on_with_under_other_settings_which_are_named(place):
    parent, path = {"run": "tiny", "step": 600, "hook": "fc.post"}, Path("runs/begun")
    begun = Run.create(path, "sae", SMALL, 0, parent)
    begun.save_checkpoint(1, {"W": torch.zeros(1)}, {})
    for given, of, sentence in (
        (replace(SMALL, learning_rate=0.01), parent, "a fit of which learning_rate is None, not 0.01 as given; give"),
        (replace(SMALL, k=3, ridge=1.0), parent, "k is 2, not 3 as given and ridge is 0.3, not 1.0 as given"),
        (SMALL, {**parent, "step": 500}, "parent.step is 600, not 500 as given"),
    ):
        with pytest.raises(RunError, match=sentence):
            fitting.newest_step(path, given, of)
    with pytest.raises(RunError, match="already holds a run of kind 'dqn'"):
        fitting.newest_step(Path("runs/tiny"), SMALL, parent)


@pytest.mark.parametrize("setting", [{"held_out": 0.5}, {"uncontrollable": True}, {"data_seed": 1}])
def test_fits_that_would_be_of_other_rows_do_not_go_together(place, setting):
    store = ActivationStore(Path("runs/tiny/activations/fc.post"))
    configs = {Path("runs/one"): SMALL, Path("runs/other"): replace(SMALL, **setting)}
    with pytest.raises(UserError, match=f"differ in {next(iter(setting))}: give all the same"):
        fitting.fit_runs(load_agent("tiny"), store, configs)
    assert not Path("runs/one").exists()


def test_a_fit_from_another_dictionary_records_it_and_resumes_as_such(place):
    fit("base0")
    agent, store = load_agent("tiny"), ActivationStore(Path("runs/tiny/activations/fc.post"))
    grown = {Path("runs/grown"): replace(SMALL, latents=48, epochs=1)}
    fitting.fit_runs(agent, store, grown, start="base0")
    parent = Run.open("grown").meta["parent"]
    assert (parent["start"], parent["start_sha256"]) == (str(Path("runs/base0")), Run.open("base0").weights_sha256(
        Run.open("base0").newest_step()))  # fmt: skip
    assert fitting.fit_runs(agent, store, grown, start="base0")[1] == 0  # there is nothing left to do
    with pytest.raises(RunError, match="parent.start"):
        fitting.fit_runs(agent, store, grown)


def test_dictionaries_that_recorded_no_digests_are_opened_and_gone_on_with(place, run):
    command = "sae fit tiny --latents 64 --k 4 --epochs 1 --batch-size 128 --episodes 0 --name mine"
    assert run(command)[0] == 0
    meta = json.loads(Path("runs/mine/meta.json").read_text())
    meta["parent"] = {k: v for k, v in meta["parent"].items() if not k.endswith("sha256")}
    Path("runs/mine/meta.json").write_text(json.dumps(meta))
    status, _, error = run(command)
    assert (status, "warning" in error) == (0, False), error


def test_the_speed_is_that_of_this_call_without_saving(place, ticks, killed_after, monkeypatch):
    save = fitting._save

    def slow(*arguments) -> None:
        save(*arguments)
        ticks.now += 1_000_000

    monkeypatch.setattr(fitting, "_save", slow)
    monkeypatch.setattr(fitting, "SAVE_EVERY", 10)
    killed_after(7, lambda: fit("resumed0"))
    begun = Run.open("resumed0").load_state()
    samples, rate = fit("resumed0")
    updates = steps("resumed0")[-1] - begun["updates"]
    assert updates < 0.4 * steps("resumed0")[-1]
    assert rate == pytest.approx((samples - begun["samples"]) / updates, rel=0.3)  # a tick or two a checkpoint
    assert fit("resumed0") == (samples, 0)


def test_logged_figures_say_in_which_space_they_are(home):
    lines = Path("runs/tiny-sae/metrics.jsonl").read_text().splitlines()
    assert all(set(json.loads(line)) == {"step", "whitened_fvu", "l0", "dead"} for line in lines)


@pytest.mark.full
def test_steps_that_can_make_no_difference_are_left_out_unless_asked_for(place):
    """Out of fits and of all that is measured; runs of before there was a choice mean what they meant."""
    store = ActivationStore(Path("runs/tiny/activations/fc.post"))
    controllable = store.column("controllable") > 0
    assert 0.5 < controllable.mean() < 0.99  # each episode starts with a pause
    fit("left0")
    fitted = runs.load_sae("left0")
    np.testing.assert_array_equal(fitted.rows, np.flatnonzero(controllable))
    assert fitted.run.load_state()["samples"] == SMALL.epochs * len(fitted.train_rows)
    known = labelled(fitted)
    assert controllable[known.train].all()
    assert controllable[known.held_out].all()
    assert "controllable" not in known.names
    with pytest.raises(UserError, match="'controllable' is true in every state"):
        evaluate_hypotheses(fitted, ["controllable high: LEFT more"], 64)

    config = Path("runs/left0/config.yaml")
    config.write_text("".join(line for line in config.open() if "uncontrollable" not in line))
    np.testing.assert_array_equal(runs.load_sae("left0").rows, np.arange(len(store)))
    asked = {Path("runs/kept0"): replace(SMALL, uncontrollable=True)}
    fitting.fit_runs(load_agent("tiny"), store, asked)
    np.testing.assert_array_equal(runs.load_sae("kept0").rows, np.arange(len(store)))


def test_a_store_that_does_not_tell_is_used_whole(place):
    old = ActivationStore(Path("runs/tiny/activations/fc.post"))
    columns = {name: old.column(name) for name in ("episode", "step", "action")}
    with StoreWriter("old", "fc.post", old.manifest["provenance"]) as writer:
        writer.append(old.read(np.arange(len(old))), columns)
    train, held_out = runs.split(ActivationStore("old"), SMALL)
    assert len(train) + len(held_out) == len(old)


@pytest.mark.parametrize("recorded", [None, "of other meanings"])
@pytest.mark.slow
def test_labels_that_meant_something_else_when_they_were_collected_are_left_out_and_said_to_be(place, run, recorded):
    path = Path("runs/tiny/activations/fc.post/manifest.json")
    manifest = json.loads(path.read_text())
    assert manifest["provenance"].pop("concepts_sha256")
    if recorded:
        manifest["provenance"]["concepts_sha256"] = recorded
    path.write_text(json.dumps(manifest))
    sentence = "labels of runs/tiny/activations/fc.post are of an earlier version and are left out; collect it again"
    fit("old0")
    command = "sae report old0 --top 1 --clips 0 --maps 0" if recorded else "sae compare old0 old0 --top 1"
    status, _, error = run(command)
    assert (status, sentence in error) == (0, True), error
    fitted = runs.load_sae("old0")
    if recorded:
        assert "are of an earlier version" in Path("runs/old0/report.html").read_text()
    else:
        assert build(fitted, 1, 0, 0)["concepts"] == []
    assert coverage_json(fitted, random_network=False) is None
    with pytest.raises(UserError, match=sentence):
        evaluate_hypotheses(fitted, ["ghost_near_left high: LEFT more"], 64)
    assert len(evaluate_hypotheses(fitted, ["0 high: LEFT more"], 64)) == 1
