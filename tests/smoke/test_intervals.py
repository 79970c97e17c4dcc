"""What is printed where there are too few values for an interval: that, and never an interval of no width."""

import json
import re
import sys
from subprocess import PIPE, Popen

import numpy as np
import pytest

from rl_interp.analysis.mazes.choices import Effect
from rl_interp.analysis.mazes.steering import dose_picture, effect_cells
from rl_interp.analysis.playing import scores_json
from rl_interp.analysis.sae.evaluation import RECOVERED
from rl_interp.analysis.sae.sweep import markdown as sweep_table
from rl_interp.analysis.sae.sweep import pareto
from rl_interp.analysis.study import Job, _finish, _share_done
from rl_interp.analysis.study_results import compare
from rl_interp.analysis.study_results import markdown as study_table
from rl_interp.app import cli
from rl_interp.core.envs import MiniGridConfig
from rl_interp.core.rollout import Episodes
from rl_interp.core.run import Run
from rl_interp.core.stats import TOO_FEW


@pytest.fixture(autouse=True)
def _at_home():
    """These need no run."""


def study(seeds):
    rng = np.random.default_rng(0)
    return [
        {"agent": "impala", "env": "E", "condition": condition, "evaluation": {"mean": mean + rng.random()}}
        for condition, mean in (("base", 1.0), ("cbet", 5.0))
        for _ in range(seeds)
    ]


def test_a_study_of_few_seeds_says_that_it_has_no_intervals():
    base, cbet = compare(study(3), "base")
    assert base["interval"] is cbet["interval"] is cbet["difference_interval"] is cbet["excludes_zero"] is None
    assert study_table([base, cbet]).count(TOO_FEW) == 3
    assert "| unknown |" in study_table([base, cbet])
    base, cbet = compare(study(5), "base")
    assert base["interval"][0] < base["interval"][1]
    assert cbet["difference"] == pytest.approx(4, abs=1)
    assert cbet["excludes_zero"] is True
    assert 3 < cbet["difference_interval"][0] < cbet["difference"] < 5
    assert TOO_FEW not in study_table([base, cbet])


def test_few_successes_get_an_interval_with_a_width():
    scores = Episodes(np.array([0.0] * 18 + [0.9, 0.8]), np.full(20, 50))
    result = scores_json(scores, MiniGridConfig("MiniGrid-Unlock-v0"), seed=0, epsilon=0.0)
    assert result["interval"] is None, "the middle half of the returns is 0 in all resamples"
    assert result["success_rate"] == 0.1
    assert result["success_rate_interval"] == pytest.approx([0.0279, 0.3010], abs=1e-4)


def test_a_sweep_that_played_one_episode_has_no_interval_in_table_or_plot(tmp_path):
    row = {"hook": "fc.post", "variant": "topk", "latents": 8, "k": 2, "l0": 2.0, "seed": 0, "fvu": 0.1}
    row |= {"returns": {name: [float(i)] for i, name in enumerate(("zero", "mean", "resample", "spliced", "original"))}}
    row |= dict.fromkeys(RECOVERED, 0.5) | {f"{name}_interval": None for name in RECOVERED}
    assert sweep_table([row]).count(f"0.5 ({TOO_FEW})") == len(RECOVERED)
    assert pareto([row], tmp_path / "pareto.png").is_file()


def test_effects_on_few_mazes_are_not_called_real(tmp_path):
    effect = Effect(0.3, None, None, 0.1)
    assert not effect.real
    assert effect_cells("found", effect) == ["found", f"+0.300 ({TOO_FEW})", "+0.100"]
    assert dose_picture({"cheese": {"vector": {-1.0: effect, 1.0: effect}}}, tmp_path / "dose.png").is_file()


def test_a_person_reads_why_there_is_no_interval(capsys):
    cli._show({"mean": 1.0, "interval": None, "kept": 0.5, "kept_interval": None, "gone": None, "gone_interval": None})
    lines = dict(re.findall(r"^(\w+): (.*)$", capsys.readouterr().out, re.M))
    assert lines["interval"] == lines["kept_interval"] == TOO_FEW
    assert lines["gone"] == lines["gone_interval"] == "none"


@pytest.mark.parametrize(("asked", "flags"), [("", ""), (" --key exact", " --cbet.key exact")])
def test_a_study_counts_as_its_trainings_do_unless_it_is_told_how(asked, flags, monkeypatch, capsys):
    monkeypatch.setattr("rl_interp.analysis.study._comparison", lambda _, jobs, *__: {"jobs": [j.line for j in jobs]})
    assert cli.main(f"study cbet --envs MiniGrid-Unlock-v0 --seeds 1 --json{asked}".split()) == 0
    base, cbet = json.loads(capsys.readouterr().out)["jobs"]
    assert cbet == f"{base} --cbet.coefficient 0.005{flags}"


def test_the_result_of_a_studys_training_says_by_which_code_and_on_which_machine_it_was_made(tmp_path):
    job = Job("impala", "x", "base", 0, ("train",))
    run = Run.create(tmp_path / "training" / job.name, "impala", {}, 0)
    run.log(5, {"episode_return": 0.25})
    told = json.dumps({"evaluation": {"mean": 0.5}, "steps_per_second": 1.0})
    _finish(Popen([sys.executable, "-c", f"print({told!r})"], stdout=PIPE, stderr=PIPE, text=True), job, tmp_path)
    result = json.loads((tmp_path / f"{job.name}.json").read_text())
    assert (result["steps"], result["returns"], result["evaluation"]) == ([5], [0.25], {"mean": 0.5})
    assert {name: result[name] for name in ("versions", "git", "hardware")}.items() <= run.meta.items()


def test_a_damaged_line_of_one_training_does_not_end_a_study(tmp_path):
    job = Job("impala", "x", "base", 0, ())
    Run.create(tmp_path / "training" / job.name, "impala", {"agent_steps": 10}, 0)
    metrics = tmp_path / "training" / job.name / "metrics.jsonl"
    for text, share in (("", 0.0), ('{"step": 5}\n', 0.5), ("damaged\n", 0.0)):
        metrics.write_text(text)
        assert _share_done(job, tmp_path) == share
