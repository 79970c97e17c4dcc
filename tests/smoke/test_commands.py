"""Every command of `rl-interp`, with the JSON that the design promises."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from selection import in_full

from rl_interp.analysis.sae.evaluation import RECOVERED, play_spliced
from rl_interp.analysis.sae.feature import Catalogue
from rl_interp.analysis.sae.names import Named, name_feature, names_of
from rl_interp.analysis.sae.runs import load_autoencoder, load_sae
from rl_interp.app import cli
from rl_interp.core.run import Run
from rl_interp.sae import Features

SAE_KEYS = {
    "run", "fvu", "l0", "dead_fraction", "ultra_rare_fraction", "dense_fraction", "dense_50_fraction",
    "action_agreement", "q_nmse",
}  # fmt: skip


@pytest.mark.full
def test_training_gives_its_json_and_resumes_as_a_finished_run(run, place):
    command = (
        "train dqn --env ALE/MsPacman-v5 --name fresh --agent-steps 400 --num-envs 4 --env-threads 1 --batch-size 8 "
        "--learning-starts 200 --replay-capacity 2000 --eval-episodes 1 --env.max-frames 1200"
    )
    status, result, _ = run(command)
    assert status == 0
    assert set(result) == {"run", "agent_steps", "env_frames", "updates", "steps_per_second", "evaluation"}
    assert (result["agent_steps"], result["env_frames"]) == (400, 1600)
    before = load_file("runs/fresh/checkpoints/400/model.safetensors")
    status, again, _ = run(command)
    assert status == 0
    assert again["evaluation"] == result["evaluation"]
    after = load_file("runs/fresh/checkpoints/400/model.safetensors")
    assert all((before[name] == after[name]).all() for name in before)


@pytest.mark.full
def test_evaluating_tells_the_protocol(run):
    status, result, _ = run("evaluate tiny --episodes 2 --seed 7")
    assert status == 0
    assert set(result) >= {"episodes", "returns", "mean", "mean_interval", "iqm", "interval", "length_mean", "protocol"}
    assert result["mean"] == pytest.approx(np.mean(result["returns"]))
    wanted = {"sticky_actions": 0.25, "frame_skip": 4, "noop_max": 30, "seed": 7, "reward_clipping": False}
    assert wanted.items() <= result["protocol"].items()
    assert run("evaluate tiny --episodes 2 --seed 7")[1]["returns"] == result["returns"]


@pytest.mark.full
def test_that_no_concept_can_be_probed_is_said(run, place, monkeypatch):
    monkeypatch.setattr("rl_interp.analysis.probes.study.probe", lambda *args: {})
    status, _, error = run("probe tiny --hooks fc.post --samples 100")
    assert status not in (0, None)
    assert "no concept is there, and is not, in 10 of the 100 samples" in error


def test_the_ground_truth_is_probed(run, place):
    status, result, error = run("probe tiny --hooks fc.post --samples 600")
    assert status == 0, error
    assert set(result["means"]) == {"fc.post", "random network: fc.post", "raw observation", "shuffled labels"}
    assert "| player_x | R² |" in Path(result["table"]).read_text()


def test_a_concept_is_erased_beside_its_controls(run, place):
    status, found, error = run(
        "erase tiny --hook fc.post --concepts player_x top_half --samples 800 --episodes 5 --controls 2"
    )
    assert status == 0, error
    assert set(found["by_concept"]) == {"player_x", "top_half"}
    column = found["by_concept"]["player_x"]
    assert column["known_after"]["value"] < column["known"]["value"]
    assert "control − erased" in Path(found["table"]).read_text()
    assert Path(found["plot"]).stat().st_size > 3_000


def test_an_autoencoder_is_fitted_measured_and_reported(run, place, capsys):
    status, fitted, shown = run("sae fit tiny --latents 64 --k 4 --epochs 2 --batch-size 128 --name other --episodes 2")
    assert status == 0
    assert re.search(r"Fitting 64 latents: [\d,]+/[\d,]+ samples +batch \d+ of \d+ +whitened FVU", shown)
    assert set(fitted) >= SAE_KEYS | {"samples", "samples_per_second"}
    assert {name: len(each) for name, each in fitted["returns"].items()} == {"original": 2, "spliced": 2}
    assert "playing 2 episodes through the dictionary and the same without" in shown
    status, measured, _ = run("sae evaluate other --episodes 2 --random-network")
    assert status == 0
    assert set(measured) >= SAE_KEYS | {*RECOVERED, "controls"}
    assert set(measured["controls"]) == {"original", "spliced", "zero", "mean", "resample"}
    assert measured["fvu"] == fitted["fvu"]
    assert {name: measured["returns"][name] for name in fitted["returns"]} == fitted["returns"], "the same episodes"
    sets = {"features", "random dictionary", "random network's dictionary", "neurons", "PCA", "ICA", "NMF"}
    assert set(measured["coverage"]["means"]) == sets
    assert all(0.4 < means["probe"] <= 1 for means in measured["coverage"]["means"].values())
    status, tested, _ = run("sae test other --count 2 --states 200")
    assert status == 0
    assert len(tested["outcomes"]) == 2
    assert all(len(each["dose"]) == 7 and "high:" in each["hypothesis"] for each in tested["outcomes"])
    assert set(tested["summary"]) == {"features", "random dictionary"}
    assert all(0 <= each["exceeds"] <= 1 for each in tested["summary"].values())
    assert cli.main(["sae", "test", "other", "1 high: LEFT,LEFT more", "--states", "200"]) == 0
    assert "\n  hypothesis 1 high: LEFT,LEFT more, feature 1, value " in capsys.readouterr().out
    assert cli.main(["sae", "test", "other", "64 high: LEFT more"]) == 1, "there are features 0 to 63"
    assert cli.main(["sae", "test", "other", "score high: LEFT more"]) == 1, "it is no yes-or-no concept"
    status, reported, _ = run("sae report other --top 2 --clips 5 --maps 3")
    assert status == 0
    page = Path(reported["report"]).read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page), "the report must need no network"
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S).group(1))
    assert len(data["features"]) == 64
    living = [feature for feature in data["features"] if feature["density"] > 0]
    assert all(len(set(t["episode"] for t in f["top"])) == len(f["top"]) for f in living)
    assert all(len(f["effects"]) == 9 and len(f["clamp"]["towards"]) == 9 for f in living)
    assert {"feature", "neuron", "random"} <= set(data["concepts"][0])
    assert len(data["clips"]) == 5
    assert set(data["clips"]) <= {str(f["top"][0]["frame"]) for f in living}
    shown = {sample for clip in data["clips"].values() for sample in clip}
    shown |= {moment["frame"] for feature in living for moment in feature["top"]}
    assert {str(sample) for sample in shown} == data["screens"]["places"].keys()
    assert all(len(clip) > 2 for clip in data["clips"].values())
    for number, sheet in enumerate(data["screens"]["sheets"]):
        with Image.open(io.BytesIO(base64.b64decode(sheet))) as picture:
            last = max(place for of, place in data["screens"]["places"].values() if of == number)
            assert picture.size == (160, 210 * (last + 1))
    assert len(data["saliency"]) == 3
    assert all(each["control"] is None or -1 <= each["control"] <= 1 for each in data["saliency"].values())
    with Image.open(io.BytesIO(base64.b64decode(next(iter(data["saliency"].values()))["image"]))) as picture:
        assert picture.size == (320, 420)
        assert np.ptp(np.asarray(picture)[..., 0].astype(int) - np.asarray(picture)[..., 2]) > 50  # red, or blue
    number, known = next((i, each) for i, each in enumerate(data["features"]) if each["density"] > 0)
    alone = Catalogue(load_autoencoder("other")).describe(number, peaks=2)
    assert alone.density == pytest.approx(known["density"], rel=1e-4)
    assert alone.histogram.tolist() == known["histogram"]
    assert [(each.episode, each.step) for each in alone.peaks] == [
        (each["episode"], each["step"]) for each in known["top"]
    ]
    assert [each.concept for each in alone.concepts] == [each["concept"] for each in known["concepts"]]
    assert alone.clamp.changed == pytest.approx(known["clamp"]["changed"], abs=1e-3)
    assert alone.clamp.changed_control == pytest.approx(known["clamp"]["changed_control"], abs=1e-3)
    kept = {each["from"]: each["value"] for each in data["evaluation"]["recovered"]}
    assert kept == {each: measured[f"return_recovered{'' if each == 'zero' else '_' + each}"] for each in kept}
    assert set(kept) == {"zero", "mean", "resample"}


def test_the_return_recovered_is_given_against_each_ablation(home):
    means = {"original": 900.0, "spliced": 800.0, "zero": 100.0, "mean": 300.0, "resample": 700.0}
    known = {condition: np.full(2, mean) for condition, mean in means.items()}
    played = play_spliced(load_sae("tiny-sae"), 2, 0, 0.0, known)
    assert played["controls"] == means
    assert played["return_recovered"] == pytest.approx(700 / 800)
    assert played["return_recovered_mean"] == pytest.approx(500 / 600)
    assert played["return_recovered_resample"] == pytest.approx(100 / 200)
    assert played["return_recovered_resample_interval"] is None, "of two episodes"


def living_feature(name: str) -> int:
    return int(Features(load_autoencoder(name).encoding).counts().argmax())


@pytest.mark.slow
def test_two_autoencoders_are_compared(run, place):
    fit = "--latents 64 --k 4 --epochs 2 --batch-size 128"
    shutil.copytree("runs/tiny", "runs/twin")  # another agent, as far as anybody can tell
    assert run(f"sae fit twin {fit} --episodes 0 --name twin-sae")[0] == 0
    assert run(f"sae fit tiny {fit} --seed 1 --episodes 0 --name other-seed")[0] == 0
    name_feature(Run.open("tiny-sae"), living_feature("tiny-sae"), Named("ghost", "to the left"))
    status, twins, error = run("sae compare tiny-sae twin-sae --output twins.html --carry-names")
    assert status == 0, error
    assert twins["carried_names"] == 1
    assert names_of(Run.open("twin-sae")) == names_of(Run.open("tiny-sae"))
    assert twins["first"]["alike"] == twins["second"]["alike"] == 1
    assert twins["first"]["best_mean"] == pytest.approx(1, abs=1e-3)
    status, seeds, _ = run("sae compare tiny-sae other-seed --top 1")
    assert seeds["first"]["best_mean_by_chance"] < seeds["first"]["best_mean"] < 0.999
    page = Path(seeds["page"]).read_text()
    assert not re.search(r"__(style|common|data)", page), "a placeholder was left"
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S).group(1))
    assert len(data["sides"][1]["features"]) == len(data["best"][1]) == 64
    assert all(data["sides"][side]["features"][pair[side]]["density"] > 0 for pair in data["pairs"] for side in (0, 1))


def test_a_fit_exports_to_saelens_layout(home):
    names = {path.name for path in (home / "runs/tiny-sae/sae_lens").iterdir()}
    assert names == {"cfg.json", "sae_weights.safetensors"}


@pytest.mark.parametrize("method", [*in_full("perturbation"), "gradient", *in_full("integrated-gradients")])
def test_a_saliency_film_has_the_games_pace_and_a_format_browsers_play(run, place, method):
    import imageio_ffmpeg

    status, result, _ = run(f"saliency tiny --method {method} --target q:LEFT --steps 3 --output film.mp4")
    assert status == 0
    assert result["frames"] == 3
    assert abs(result["spearman_with_shuffled_weights"]) <= 1
    meta = next(imageio_ffmpeg.read_frames("film.mp4"))
    assert meta["fps"] == 15
    assert meta["codec"] == "h264"
    assert meta["pix_fmt"].startswith("yuv420p")
    assert Path(result["still"]).stat().st_size > 5_000


def test_a_film_can_explain_a_feature(run, place):
    status, result, _ = run("saliency tiny --target feature:3 --sae tiny-sae --steps 2 --output film.mp4")
    assert status == 0
    assert result["target"] == "feature:3"
    assert Path("film.mp4").stat().st_size > 1_000


def test_info_names_versions_and_hardware(run):
    status, result, _ = run("info")
    assert status == 0
    assert "torch" in json.dumps(result)


def test_without_json_a_person_reads_figures(home, capsys):
    assert cli.main(["evaluate", "tiny", "--episodes", "1"]) == 0
    assert re.search(r"^mean: \d+", capsys.readouterr().out, re.M)
