"""Make the faults of `mutants.toml`, one at a time, in copies of the tree, and list those that no test notices.

    python tests/mutants/run.py [--parallel 2] [--full] [words of a path or a fault ...]

Each fault is tried on the tests named beside it, without those that `make test` leaves out; `--full` has those too. The
exit status is 1 if a fault survives, or if the tests fail without any fault.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[2]
LIMIT = 900
"""Seconds in which tests must end: a fault may make them wait for good."""


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

    def applied(self, source: str) -> str:
        """The file's text with the fault in it."""
        if source.count(self.text) != 1:
            raise ValueError(f"{self}: {self.text!r} is there {source.count(self.text)} times, and must be once.")
        return source.replace(self.text, self.replacement)


def read() -> list[Mutant]:
    """All faults, each checked to be one that can be made now."""
    listed = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text(encoding="utf-8"))["mutant"]
    mutants = [
        Mutant(each["fault"], each["path"], each["text"], each["with"], tuple(each["tests"].split())) for each in listed
    ]
    for mutant in mutants:
        mutant.applied((ROOT / mutant.path).read_text(encoding="utf-8"))
        for test in mutant.tests:
            if not (ROOT / test.partition("::")[0]).is_file():
                raise ValueError(f"{mutant}: {test} is not there.")
    return mutants


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


def passes(tree: Path, tests: Sequence[str], full: bool) -> bool:
    """Whether tests pass in a tree; those that `make test` leaves out only if `full`."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *(("-m", "not slow") if full else ())]
    with tempfile.TemporaryDirectory() as temporary:
        command += ["--basetemp", f"{temporary}/tests", *tests]
        environment = os.environ | {"PYTHONPATH": str(tree)}
        try:
            done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return False
    if done.returncode not in (0, 1, 2):  # 2: a fault that shows when the tests are imported
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr}")
    return done.returncode == 0


def survives(tree: Path, mutant: Mutant, full: bool) -> bool:
    """Whether no test notices the fault. The file is afterwards as it was, to its time of change, so that what is
    compiled of it stays valid."""
    path = tree / mutant.path
    whole = path.with_suffix(".whole")
    path.rename(whole)
    try:
        path.write_text(mutant.applied(whole.read_text(encoding="utf-8")), encoding="utf-8")
        return passes(tree, mutant.tests, full)
    finally:
        whole.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only faults of which a line of the list has one of these")
    parser.add_argument("--parallel", type=int, default=2, help="copies that are tried side by side")
    parser.add_argument("--full", action="store_true", help="with the tests that `make test` leaves out")
    given = parser.parse_args()
    mutants = [each for each in read() if not given.words or any(word in str(each) for word in given.words)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.parallel) as pool:
        free: SimpleQueue[Path] = SimpleQueue()
        for number in range(given.parallel):
            free.put(copied(Path(folder) / str(number)))

        def tried(mutant: Mutant) -> bool:
            tree = free.get()
            try:
                survived = survives(tree, mutant, given.full)
                print("SURVIVES" if survived else "killed  ", mutant, flush=True)
                return survived
            finally:
                free.put(tree)

        survivors = sum(pool.map(tried, mutants))
    print(f"{len(mutants) - survivors} of {len(mutants)} faults are noticed.")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
