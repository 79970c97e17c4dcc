"""Bad input: one sentence that says what was given, what was wanted and what to do, and no half-written file."""

import errno
import os
import re
import signal
from pathlib import Path

import pytest
import yaml
from selection import in_slow, mostly_in_full

from rl_interp.app.progress import _Lines
from rl_interp.core.files import sha256, write_json
from rl_interp.core.run import Run

TRAIN = (
    "train dqn --name new --num-envs 4 --env-threads 1 --batch-size 8 --learning-starts 200 --replay-capacity 2000 "
    "--eval-episodes 1 --log-every 100 --env.max-frames 1200"
)


def newest(name: str) -> Path:
    return max(Path(f"runs/{name}/checkpoints").iterdir(), key=lambda path: int(path.name))


def files() -> set[str]:
    return {str(path) for path in Path(".").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (f"{TRAIN} --env ALE/MsPackman-v5", "unknown environment 'ALE/MsPackman-v5'.*Did you mean 'ALE/MsPacman-v5'"),
        ("evaluate tinny", "unknown run 'tinny'. Did you mean 'tiny'.* Known: tiny"),
        ("evaluate tiny --checkpoint 5", "unknown checkpoint step of .*tiny 5; known: 600"),
        ("evaluate tiny-sae", "is a run of kind 'sae', which holds no agent"),
        ("evaluate tiny --episodes 0", "episodes=0 given"),
        ("collect tiny --hook fc.past", "unknown hook point.*'fc.past'.*Did you mean 'fc.post'"),
        ("collect tiny --samples 0", "samples=0 given"),
        ("sae fit tiny --hook conv1.post", "is no activation store.*rl-interp collect"),
        ("sae fit tiny --latents 16 --k 17", "k=17 given with latents=16"),
        ("sae fit tiny --latents 100000", "samples given for 100000 latents"),
        ("sae fit tiny --latents 64 --k 4 --held-out 0", "held_out=0 given; a dictionary is evaluated on episodes"),
        ("sae fit tiny --latents 64 --k 4 --seed -1", "seed=-1 given; it must be at least 0"),
        ("sae fit tiny --latents 64 --k 4 --data-seed -1", "data_seed=-1 given; it must be at least 0"),
        ("sae sweep tiny --config.held-out 0", "held_out=0 given"),
        ("sae evaluate tiny", "is a run of kind 'dqn'; give a run that `rl-interp sae fit` made"),
        ("saliency tiny --target q:LEFTT", "unknown action 'LEFTT'.*Did you mean 'LEFT'"),
        ("saliency tiny --target best", "unknown saliency target 'best'"),
        (
            "saliency tiny --target feature:3",
            r"target 'feature:3' given without an autoencoder; name the one .* \(--sae\)",
        ),
        ("saliency tiny --target feature:64 --sae tiny-sae", "target 'feature:64' given; .* has features 0 to 63"),
        ("demo --run tiny --output runs", "runs holds other things than a demo, which would be lost"),
        ("sae pull owner/name --output runs/tiny", "runs/tiny holds .*, which is no part of what is written there"),
        ("saliency tiny --method lime", "unknown saliency method 'lime'; known: perturbation"),
        ("saliency tiny --output film.avi", "its name must end in .mp4"),
        ("evaluate tiny --device cuda:9", "device 'cuda:9' is not usable here"),
        ("sae fit tiny --latents 64 --k 4 --device cuda:9", "device 'cuda:9' is not usable here"),
    ],
)
def test_a_sentence_names_what_was_wrong(run, place, command, sentence):
    before = files()
    status, _, err = run(command)
    assert status == 1
    assert re.search(sentence, err), err
    assert "Traceback" not in err
    assert files() == before


def test_an_altered_or_truncated_checkpoint_is_refused(run, place):
    weights = newest("tiny") / "model.safetensors"
    whole = weights.read_bytes()
    for spoiled in (whole[:-7], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(spoiled)
        status, _, err = run("evaluate tiny")
        assert status == 1
        assert "does not match the sha256 in its manifest: the file is truncated or was altered" in err


def test_a_checkpoint_of_another_architecture_is_refused(run, place):
    config = Path("runs/tiny/config.yaml")
    values = yaml.safe_load(config.read_text())
    values["env"]["id"] = "ALE/Breakout-v5"  # four actions instead of nine
    config.write_text(yaml.safe_dump(values))
    status, _, err = run("evaluate tiny")
    assert status == 1
    assert re.search(r"has a different architecture: 'q.\w+' is \(9.*\) there and \(4.*\) in DQN", err)


def test_a_checkpoint_cannot_run_code(run, place):
    class Bomb:
        def __reduce__(self):
            return os.system, ("touch exploded",)

    import torch

    state = newest("tiny") / "state.pt"
    torch.save({"learner": Bomb()}, state)
    digests = {name: sha256(newest("tiny") / name) for name in ("state.pt", "model.safetensors")}
    write_json(newest("tiny") / "manifest.json", {"step": 600, "files": digests})
    status, _, err = run(TRAIN.replace("--name new", "--name tiny") + " --agent-steps 600")
    assert status == 1
    assert "state.pt was not read: it holds posix.system, which is neither a tensor nor a plain container" in err
    assert not Path("exploded").exists()


def test_a_run_is_not_continued_with_another_configuration(run, place):
    status, _, err = run("train dqn --name tiny --gamma 0.5")
    assert status == 1
    assert "already holds a run of which" in err
    assert "gamma is 0.99, not 0.5 as given" in err


def test_a_loss_that_is_not_finite_stops_training(run, place):
    status, _, err = run(f"{TRAIN} --agent-steps 2000 --learning-rate 1e30 --max-grad-norm 1e30")
    assert status == 1
    assert re.search(r"became (nan|inf) at step \d+; the last checkpoint is kept: lower", err)


def test_a_store_with_a_missing_or_altered_shard_is_refused(run, place):
    shard = next(Path("runs/tiny/activations/fc.post").glob("shard-*.npy"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    status, _, err = run("sae fit tiny --latents 16 --k 2")
    assert status == 1
    assert f"{shard.name} does not match the sha256" in err
    shard.unlink()
    status, _, err = run("sae fit tiny --latents 16 --k 2")
    assert status == 1
    assert f"{shard.name} is missing" in err


def test_without_ffmpeg_the_film_says_so(run, place, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nonexistent/ffmpeg")
    status, _, err = run("saliency tiny --steps 2 --method gradient --output film.mp4")
    assert status == 1
    assert "ffmpeg" in err
    assert "IMAGEIO_FFMPEG_EXE" in err
    assert not Path("film.mp4").exists()


@pytest.mark.parametrize(
    "command",
    [f"{TRAIN} --agent-steps 400", *in_slow("collect tiny --samples 300 --hook fc.pre", "sae report tiny-sae")],
)
def test_a_full_disk_is_named_and_leaves_no_half_file(run, place, monkeypatch, command):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = run(command)
    assert status == 1
    assert "the disk is full: " in err
    assert not [path for path in Path(".").rglob(".*") if path.name not in (".", "..")]
    assert not list(Path(".").rglob("report.html"))


LONG = {
    "train": f"{TRAIN} --agent-steps 1000000 --name stopped",
    "train impala": "train impala --env MiniGrid-Empty-5x5-v0 --hidden 16 --lstm 16 --num-envs 4 --unroll 10 "
    "--agent-steps 1000000 --log-every 40 --actors 1 --name stopped",
    "study": "study cbet --envs MiniGrid-Empty-5x5-v0 --seeds 1 --agent-steps 200000 --name stopped",
    "evaluate": "evaluate tiny --episodes 1000",
    "collect": "collect tiny --hook fc.pre --samples 100000",
    "sae fit": "sae fit tiny --latents 64 --k 4 --epochs 2000 --name stopped",
    "sae evaluate": "sae evaluate tiny-sae --episodes 1000",
    "sae report": "sae report tiny-sae --maps 2",
    "saliency": "saliency tiny --steps 200 --output film.mp4",
    "demo": "demo --run tiny --episodes 1000",
}


@pytest.fixture
def interrupt(monkeypatch):
    """Sends a signal to this process when a progress bar moves for the first time."""

    def at_first_progress(number: int) -> None:
        def progress(bar, done, note=""):
            if done:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(_Lines, "__call__", progress)

    yield at_first_progress
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *mostly_in_full(
            [*((name, signal.SIGINT) for name in LONG if name != "study"), ("train", signal.SIGTERM)],
            [("train", signal.SIGINT), ("sae fit", signal.SIGINT)],
        ),
        *in_slow(("study", signal.SIGINT), ("evaluate", signal.SIGTERM)),
    ],
)
def test_a_long_command_stops_cleanly(run, place, interrupt, name, number):
    before = files()
    interrupt(number)
    status, _, err = run(LONG[name])
    assert status == 130
    assert "stopped" in err
    assert "Traceback" not in err
    assert not {path for path in files() - before if not path.startswith(("runs/stopped/", "runs/demo/demo.json"))}
    if name in ("train", "train impala", "sae fit"):
        assert "run the same command again to go on" in err
        assert not list(Path("runs/stopped").rglob(".*"))


def test_a_stopped_fit_goes_on(run, place, interrupt):
    interrupt(signal.SIGINT)
    steps = []
    for _ in range(2):
        status, _, err = run(LONG["sae fit"])
        assert (status, "run the same command again to go on" in err) == (130, True), err
        steps.append(int(newest("stopped").name))
    assert 0 < steps[0] < steps[1]


WRITERS = {
    f"{TRAIN} --agent-steps 600": "runs/new",
    f"{TRAIN} --agent-steps 600 --name tiny": "runs/tiny",
    "collect tiny --samples 1200": "runs/tiny/activations/fc.post",
    "sae fit tiny --latents 64 --k 4 --name new": "runs/new",
    "sae sweep tiny --latents 64 --ks 4 --name new": "runs/new",
    "study cbet --envs MiniGrid-Empty-5x5-v0 --seeds 1 --agent-steps 200 --name new": "runs/new",
    "demo --run tiny --output runs/new": "runs/new",
}


@pytest.mark.parametrize("command", WRITERS)
def test_the_second_of_two_commands_on_one_thing_is_told_so(run, place, holder, command):
    holder(WRITERS[command])
    before = files()
    status, _, err = run(command)
    assert status == 1
    assert re.search(f"{WRITERS[command]} is being written by another command .* wait until it has ended", err), err
    assert files() == before


@pytest.mark.full
def test_what_is_harmless_beside_a_training_is_not_refused(run, place, holder):
    holder("runs/tiny")
    assert run("collect tiny --hook fc.pre --samples 100")[0] == 0
    assert run("evaluate tiny --episodes 1")[0] == 0


def test_a_study_does_not_take_another_trainings_result_for_its_own(run, place):
    study = "study cbet --envs MiniGrid-Empty-5x5-v0 --seeds 1 --name s --agent-steps"
    path = Path("runs/s/impala-empty-5x5-base-seed0.json")
    made_by = {"command": "rl-interp train impala --agent-steps 7", "condition": "base", "agent": "impala", "env": "x"}
    write_json(path, made_by | {"steps": [], "returns": [], "evaluation": {"mean": 0.5}})
    status, _, err = run(f"{study} 200")
    assert status == 1
    assert "is the result of `rl-interp train impala --agent-steps 7`, and `rl-interp train impala" in err
    for damaged in ("", "[]", '{"agent": "impala"}'):
        path.write_text(damaged)
        status, _, err = run(f"{study} 200")
        assert status == 1
        assert f"{path} " in err.replace("\n", " ")
        assert "remove the file to train again" in err


def test_a_demo_empties_no_directory_in_which_something_was_put(run, place):
    write_json(Path("runs/demo/demo.json"), {})
    Path("runs/demo/notes.txt").write_text("mine")
    status, _, err = run("demo --run tiny --episodes 1")
    assert status == 1
    assert "runs/demo holds other things than a demo, which would be lost (notes.txt); give another --output" in err


LENGTHENED = {
    "dqn": f"{TRAIN} --name longer --agent-steps",
    "dqn, one step size": f"{TRAIN} --final-learning-rate None --name longer --agent-steps",
    "impala": "train impala --env MiniGrid-Empty-5x5-v0 --hidden 16 --lstm 16 --num-envs 4 --unroll 10 --log-every 40 "
    "--eval-episodes 1 --actors 0 --name longer --agent-steps",
    "impala, one step size": "train impala --env MiniGrid-Empty-5x5-v0 --hidden 16 --lstm 16 --num-envs 4 --unroll 10 "
    "--log-every 40 --eval-episodes 1 --actors 0 --learning-rate 1e-3 --final-learning-rate 1e-3 --name longer "
    "--agent-steps",
    "dreamerv3": "train dreamerv3 --env MiniGrid-Empty-5x5-v0 --size debug --num-envs 2 --batch-size 2 "
    "--batch-length 8 --train-ratio 2 --learning-starts 32 --imag-horizon 4 --eval-episodes 1 --name longer "
    "--agent-steps",
}


@pytest.mark.parametrize("agent", mostly_in_full(LENGTHENED, ["impala", "impala, one step size"]))
def test_a_finished_training_is_made_longer(run, place, agent):
    command = LENGTHENED[agent]
    assert run(f"{command} 240")[0] == 0
    status, result, error = run(f"{command} 360")
    assert status == 0, error
    assert result["agent_steps"] == 360
    assert "is made longer, from 240 to 360 steps." in error
    falls = agent in ("impala", "dqn")
    assert ("Its step size falls to 0 at the last step, so that at step 240 it now is" in error) == falls
    assert ("Its step size" in error) == falls
    (once,) = Run.open("longer").meta["extended"]
    assert (once["from"], once["to"], once["at"]) == (240, 360, 240)
    assert Run.open("longer").config["agent_steps"] == 360
    assert run(f"{command} 360")[1]["agent_steps"] == 360
    status, _, error = run(f"{command} 240")
    assert status == 1
    assert "is trained for 360 steps, and --agent-steps 240 was given; a run can be made longer, not" in error
    assert run(f"{command} 480 --seed 1")[0] == 1
    assert len(Run.open("longer").meta["extended"]) == 1


@pytest.mark.full
def test_a_training_that_failed_at_its_start_does_not_block_its_name(run, place, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("rl_interp.agents.dqn.training.Training.advance", lambda self: 1 / 0)
        run(f"{TRAIN} --agent-steps 240")
    status, _, error = run(f"{TRAIN} --agent-steps 240 --replay-capacity 1000 --seed 3")
    assert status == 0, error
    assert "runs/new was begun before and has no checkpoint; it begins anew." in error
    assert (Run.open("new").meta["seed"], Run.open("new").config["replay_capacity"]) == (3, 1000)


def test_nothing_temporary_is_left_over(home):
    assert not list((home / "runs").rglob(".*"))
