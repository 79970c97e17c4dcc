"""What the kill harness and the disk-full harness share: small forms of the long commands, run in forked processes, and
what must hold of the files that they leave.

Everything is imported once and each command runs in a fork of that, so that a kill costs its command and not its
imports.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from processes import die, watch_files

from rl_interp.analysis.sae import fitting
from rl_interp.app import cli
from rl_interp.core.run import Run
from rl_interp.core.store import ActivationStore

logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it says each time that a run was gone on with

GAME = "--env MiniGrid-Empty-5x5-v0 --eval-episodes 1 --precision fp32"
DREAMER = (
    f"train dreamerv3 {GAME} --size debug --agent-steps 320 --num-envs 2 --batch-size 2 --batch-length 8 "
    "--train-ratio 2 --learning-starts 64 --imag-horizon 4 --checkpoint-every 64 --log-every 20"
)
IMPALA = (
    f"train impala {GAME} --hidden 16 --lstm 16 --num-envs 4 --unroll 10 --agent-steps 1600 --checkpoint-every 200 "
    "--log-every 80"
)
DQN = (
    "train dqn --env ALE/MsPacman-v5 --env.max-frames 400 --agent-steps 480 --num-envs 4 --env-threads 1 "
    "--batch-size 8 --learning-starts 100 --replay-capacity 400 --eval-episodes 1 --checkpoint-every 80 "
    "--log-every 40 --precision fp32"
)
FIT = "--latents 32 --k 2 --epochs 40 --batch-size 64"
DEMO = "--episodes 1 --samples 200 --steps 4 --config.latents 32 --config.k 2 --config.epochs 20 --config.batch-size 64"
SWEEP = "--latents 32 --ks 2 4 --config.epochs 6 --config.batch-size 64"


@dataclass(frozen=True)
class Command:
    """A long command in small."""

    name: str
    line: str
    made: str
    """What it makes, under runs/."""
    exact: bool = True
    """Whether one that was stopped is promised to end with the same bits as one that was not."""


COMMANDS = [
    Command("train dqn", f"{DQN} --name made", "made", exact=False),
    Command("train impala", f"{IMPALA} --actors 0 --name made", "made"),
    Command("train impala with the bonus", f"{IMPALA} --actors 0 --cbet --cbet.width 4096 --name made", "made"),
    Command("train impala with actors", f"{IMPALA} --actors 1 --name made", "made", exact=False),
    Command("train dreamerv3", f"{DREAMER} --name made", "made"),
    Command("train dreamerv3 with latents", f"{DREAMER} --replay-latents --name made", "made", exact=False),
    Command("collect", "collect agent --hook conv2.post --samples 300 --seed 7", "agent/activations/conv2.post"),
    Command("sae fit", f"sae fit agent --hook conv2.post {FIT} --episodes 0 --name made", "made"),
    Command("demo", f"demo --run pacman --output runs/made {DEMO}", "made"),
    Command("sae sweep", f"sae sweep agent --hooks conv2.post {SWEEP} --name made", "made"),
]
MADE_BEFORE = (
    "train dqn --env ALE/MsPacman-v5 --env.max-frames 400 --agent-steps 160 --num-envs 4 --env-threads 1 "
    "--batch-size 8 --learning-starts 100 --replay-capacity 400 --eval-episodes 1 --precision fp32 --name pacman",
    f"train impala {GAME} --hidden 16 --lstm 16 --num-envs 4 --unroll 10 --agent-steps 80 --actors 0 --name agent",
    "collect agent --hook conv2.post --samples 200",
    "sae fit agent --hook conv2.post --latents 32 --k 2 --epochs 1 --batch-size 64 --episodes 0 --name dictionary",
)


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int | None
    """Exit status; None if it was killed."""
    output: str
    """On stdout and stderr."""
    seconds: float
    operations: int
    """On files under the working directory, as far as Python sees them."""

    @property
    def result(self) -> dict[str, Any]:
        """Without how fast it was."""
        found = json.loads(self.output.splitlines()[-1])
        return {name: value for name, value in found.items() if "per_second" not in name}


def play(
    line: str,
    seconds: float | None = None,
    operation: int | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Outcome:
    """Run a command in a child, to its end or to where it is killed: after `seconds`, or just before it does its
    `operation`-th thing to a file."""
    counter, output = os.memfd_create("operations"), os.memfd_create("output")
    started = time.monotonic()
    child = os.fork()
    if not child:
        _command(line, counter, output, operation)
    status = None
    while status is None:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
        elif seconds is not None and time.monotonic() - started > seconds:
            os.kill(child, signal.SIGKILL)
            seconds = None
        else:
            meanwhile()
            time.sleep(0.001)
    taken = time.monotonic() - started
    said, operations = (os.pread(each, 1 << 20, 0) for each in (output, counter))
    os.close(counter)
    os.close(output)
    return Outcome(None if status == -signal.SIGKILL else status, said.decode(), taken, len(operations))


def _command(line: str, counter: int, output: int, last: int | None) -> None:
    """The child: it never returns."""

    def each(count: int) -> None:
        if count == last:
            die()
        os.pwrite(counter, b"!", count)

    status = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False) for fd in (1, 2))  # noqa: SIM115
        cli.console.file = sys.stderr
        fitting.SAVE_EVERY = 0.05  # else a small fit would have one checkpoint, at its end
        torch.set_num_threads(1)
        watch_files("runs", each)
        status = cli.main([*line.split(), "--json"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(status)


@contextlib.contextmanager
def at(directory: Path) -> Iterator[None]:
    """Work there."""
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def require(fine: object, what: str, outcome: Outcome | None = None) -> None:
    if not fine:
        said = "" if outcome is None else f"\nstatus {outcome.status}:\n{outcome.output[-3000:]}"
        raise AssertionError(f"{what}{said}")


def check_whole(home: Path) -> None:
    """Whatever is there under its name is whole: stores, checkpoints, JSON and its lines."""
    for manifest in home.rglob("manifest.json"):
        if _inside_a_temporary(manifest, home):
            continue
        if manifest.parent.parent.name == "checkpoints":
            Run(manifest.parents[2]).checkpoint(int(manifest.parent.name))
        else:
            ActivationStore(manifest.parent)
    for folder in home.rglob("checkpoints/*"):
        if not _inside_a_temporary(folder, home):
            require((folder / "manifest.json").is_file(), f"{folder} is no checkpoint")
    for path in home.rglob("*.json"):
        if not _inside_a_temporary(path, home):
            json.loads(path.read_text())
    for path in home.rglob("metrics.jsonl"):
        Run(path.parent).metrics()


def check_no_leftovers(home: Path) -> None:
    left = [str(path.relative_to(home)) for path in home.rglob(".*")]
    require(not left, f"left over: {left}")


def check_metrics(run: Path) -> None:
    """No line twice, and TensorBoard shows what the lines say."""
    if not (run / "metrics.jsonl").exists():
        return
    lines = Run(run).metrics()
    keys = [(line["step"], "eval_return" in line, "restarted_from_weights" in line) for line in lines]
    require(len(set(keys)) == len(keys), f"{run}: a line is there twice: {keys}")
    require([step for step, *_ in keys] == sorted(step for step, *_ in keys), f"{run}: lines out of order: {keys}")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(run / "tb"), size_guidance={"scalars": 0})
    shown.Reload()
    for name in shown.Tags()["scalars"]:
        points = [point.step for point in shown.Scalars(name)]
        wanted = [line["step"] for line in lines if name in line]
        require(points == wanted, f"{run}: TensorBoard shows {name} at {points}, metrics.jsonl has it at {wanted}")


def contents(path: Path) -> dict[str, Any]:
    """What must be the same bits again, by name: weights, figures, a store's files."""
    found: dict[str, Any] = {}
    for file in sorted(path.rglob("*")):
        name = str(file.relative_to(path))
        if file.suffix in (".npy", ".parquet", ".safetensors") and "replay" not in name:
            found[name] = file.read_bytes()
        elif file.name == "metrics.jsonl":
            rates = ("steps_per_second",)
            found[name] = [{k: v for k, v in line.items() if k not in rates} for line in Run(file.parent).metrics()]
        elif file.name in ("sae.json", "result.json"):
            found[name] = _lasting(json.loads(file.read_text()))
    return found


_PASSING = ("sha256", "made_from", "second", "memory")


def _lasting(value: Any) -> Any:
    """Without digests, and without how fast it was."""
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if not any(each in k for each in _PASSING)}
    return [_lasting(each) for each in value] if isinstance(value, list) else value


def _inside_a_temporary(path: Path, home: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(home).parts)
