"""Make the faults of `mutants.toml`, one at a time, in copies of the tree, and list those that no test notices.

    python tests/mutants/run.py [--parallel 2] [--full] [words of a path or a fault ...]

Each fault is tried on the tests named beside it, without those that `make test` leaves out; `--full` has those too. A
test that fails is run again without the fault, and has noticed it only if it then passes. The exit status is 1 if a
fault survives, can't be made, or fails a test that fails anyway. What others have written is imported once, and every
try is a fork of that.
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
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """A fault made in a tree, while its tests run in a child; and then, without it, the test that failed."""

    def __init__(self, tree: Path, mutant: Mutant, full: bool):
        self.tree, self.mutant, self.full = tree, mutant, full
        self.begun, self._failed = time.monotonic(), False
        path = tree / mutant.path
        self._whole = path.with_suffix(".whole")
        path.rename(self._whole)
        source = self._whole.read_text(encoding="utf-8")
        path.write_text(source.replace(mutant.text, mutant.replacement), encoding="utf-8")
        self._start(mutant.tests)

    def _start(self, tests: Sequence[str]) -> None:
        self._started, self._child = time.monotonic(), os.fork()
        if not self._child:
            _run_tests(self.tree, tests, self.full)

    def outcome(self) -> str | None:
        """`killed`, `SURVIVES`, or `BROKEN` where a test fails without the fault too; None while tests run."""
        done, status = os.waitpid(self._child, os.WNOHANG)
        if not done and time.monotonic() - self._started < LIMIT:
            return None
        with suppress(ProcessLookupError):  # and what a test started and left
            os.killpg(self._child, signal.SIGKILL)
        if not done:
            os.waitpid(self._child, 0)
        code = os.waitstatus_to_exitcode(status) if done else 1
        if self._failed:
            return "BROKEN" if code else "killed"
        self._whole.replace(
            self.tree / self.mutant.path
        )  # as it was, to its time of change: what was compiled is valid
        if not code:
            return "SURVIVES"
        self._failed = True
        self._start((self.tree / _FAILED).read_text(encoding="utf-8").splitlines()[:1] or self.mutant.tests)
        return None


_FAILED, _LOG = "failed.txt", "log.txt"
"""In a tree: the ids of the tests that failed, and what pytest said."""


class _Failures:
    """A plugin of pytest that writes down what failed."""

    def __init__(self, path: Path):
        path.write_text("", encoding="utf-8")
        self._path = path

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(f"{report.nodeid}\n")

    pytest_collectreport = pytest_runtest_logreport


def _run_tests(tree: Path, tests: Sequence[str], full: bool) -> None:
    """In a child, which ends with pytest's status."""
    import pytest

    os.setpgid(0, 0)
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)
    log = os.open(_LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    temporary = tree.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    options = ["-x", "-p", "no:cacheprovider", "--basetemp", str(temporary), *(("-m", "not slow") if full else ())]
    status = 3
    try:
        status = int(pytest.main([*options, *tests], plugins=[_Failures(tree / _FAILED)]))
    finally:
        os._exit(status)


def _make_home(tree: Path, home: Path) -> None:
    """Have the runs that the tests of commands use made once, without any fault."""
    os.environ["RL_INTERP_TESTS_HOME"] = str(home)
    child = os.fork()
    if not child:
        _run_tests(tree, ["tests/smoke/test_commands.py::test_a_fit_exports_to_saelens_layout"], full=False)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"the tests fail without any fault:\n{(tree / _LOG).read_text()[-3000:]}")


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
        if any(test.startswith("tests/smoke/") for mutant in left for test in mutant.tests):
            _make_home(free[0], Path(folder, "home"))
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
