"""Make the faults of `mutants.toml`, one at a time, in copies of the tree, and list those that no test notices.

    python tests/mutants/run.py [--parallel 2] [--full] [words of a path or a fault ...]

Each fault is tried on the tests named beside it, without those that `make test` leaves out; `--full` has those too. The
exit status is 1 if a fault survives or can't be made. What others have written is imported once, and every try is a
fork of that.
"""

import argparse
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 900
"""Seconds in which tests must end: a fault may make them wait for good."""
IMPORTED_ONCE = (
    "ale_py", "captum.attr", "crafter", "cv2", "gymnasium", "jinja2", "matplotlib.pyplot", "minigrid", "numba",
    "pyarrow.parquet", "pytest", "rich.progress", "scipy.stats", "sklearn.linear_model", "torch", "tyro",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A fault: what stands once in a file, and what takes its place."""

    fault: str
    path: str
    text: str
    replacement: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path}: {self.fault}"

    @property
    def stale(self) -> str | None:
        """Why it can't be made; None if it can."""
        missing = [name for name in (self.path, *self.tests) if not (ROOT / name.partition("::")[0]).is_file()]
        if missing:
            return f"{missing[0]} is not there"
        count = (ROOT / self.path).read_text(encoding="utf-8").count(self.text)
        return None if count == 1 else f"{self.text!r} stands there {count} times, and must once"


class Try:
    """A fault made in a tree, while its tests run in a child."""

    def __init__(self, tree: Path, mutant: Mutant, full: bool):
        self.tree, self.mutant, self.begun = tree, mutant, time.monotonic()
        path = tree / mutant.path
        self._whole = path.with_suffix(".whole")
        path.rename(self._whole)
        source = self._whole.read_text(encoding="utf-8")
        path.write_text(source.replace(mutant.text, mutant.replacement), encoding="utf-8")
        self._child = os.fork()
        if not self._child:
            _run_tests(tree, mutant.tests, full)

    def outcome(self) -> str | None:
        """`killed` or `SURVIVES`; None while the tests run. The file is then as it was, to its time of change, so that
        what is compiled of it stays valid."""
        done, status = os.waitpid(self._child, os.WNOHANG)
        if not done and time.monotonic() - self.begun < LIMIT:
            return None
        with suppress(ProcessLookupError):  # and what a test started and left
            os.killpg(self._child, signal.SIGKILL)
        if not done:
            os.waitpid(self._child, 0)
        self._whole.replace(self.tree / self.mutant.path)
        code = os.waitstatus_to_exitcode(status) if done else 1
        if code > 2:  # 2 is of a fault that shows when the tests are imported
            raise RuntimeError(f"{self.mutant}: pytest ended with {code}:\n{(self.tree / 'log').read_text()[-3000:]}")
        return "killed" if code else "SURVIVES"


def _run_tests(tree: Path, tests: tuple[str, ...], full: bool) -> None:
    """In a child, which ends with pytest's status."""
    import pytest

    os.setpgid(0, 0)
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    shutil.rmtree(tree.with_suffix(".tmp"), ignore_errors=True)
    chosen = ("-m", "not slow") if full else ()
    options = ["-x", "-p", "no:cacheprovider", "--basetemp", str(tree.with_suffix(".tmp")), *chosen]
    status = 3
    try:
        status = int(pytest.main([*options, *tests]))
    finally:
        os._exit(status)


def read() -> list[Mutant]:
    listed = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text(encoding="utf-8"))["mutant"]
    return [
        Mutant(each["fault"], each["path"], each["text"], each["with"], tuple(each["tests"].split())) for each in listed
    ]


def copied(to: Path) -> Path:
    """A copy of the tree: what Git tracks or would, with what Numba has compiled, and links to the runs' files."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    names += [str(path.relative_to(ROOT)) for path in ROOT.rglob("__pycache__/*.nb[ic]")]
    for source in (ROOT / name for name in names if os.path.lexists(ROOT / name)):
        target = to / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_relative_to(ROOT / "runs"):
            target.symlink_to(source)
        else:
            shutil.copy2(source, target, follow_symlinks=False)
    return to


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only faults of which a line of the list has one of these")
    parser.add_argument("--parallel", type=int, default=2, help="copies that are tried side by side")
    parser.add_argument("--full", action="store_true", help="with the tests that `make test` leaves out")
    given = parser.parse_args()
    mutants = [each for each in read() if not given.words or any(word in str(each) for word in given.words)]
    left, unnoticed, tries = [], 0, []
    for mutant in mutants:
        if mutant.stale:
            print(f"STALE    {mutant}: {mutant.stale}", flush=True)
            unnoticed += 1
        else:
            left.append(mutant)
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in IMPORTED_ONCE:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        free = [copied(Path(folder, str(number))) for number in range(given.parallel)]
        while left or tries:
            while left and free:
                tries.append(Try(free.pop(), left.pop(0), given.full))
            for each in [*tries]:
                if outcome := each.outcome():
                    print(f"{outcome:8} {each.mutant} ({time.monotonic() - each.begun:.0f} s)", flush=True)
                    unnoticed += outcome != "killed"
                    tries.remove(each)
                    free.append(each.tree)
            time.sleep(0.05)
    print(f"{len(mutants) - unnoticed} of {len(mutants)} faults are noticed.")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
