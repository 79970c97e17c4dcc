"""Every loader, given altered files: they are loaded and can be used, or refused in one sentence; nothing else. Where a
file was only written otherwise, what comes of it is the same as before; but one that no longer has the sha256 that is
known of it is refused in any case.

    python tests/fuzz/fuzz.py [SECONDS] [TARGET ...] [--corpus]

alters each target's file at random for so many seconds (60 by default), in a process of its own. What is neither loaded
nor refused is printed as it can be repeated: target, mutation, seed. `--corpus` also writes `corpus.json`, which the
ordinary tests repeat: an alteration for each sentence in which a file was refused, and for each that once had no such
sentence.
"""

import argparse
import json
import multiprocessing
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alterations import SAME
from torch.testing import assert_close

from rl_interp.core.errors import UserError

CORPUS = Path(__file__).parent / "corpus.json"
PATIENCE = 10
"""Seconds of the processor's time that reading an altered file may take."""
ROOM = 300 * 2**20
"""Bytes that it may take, beside one and a half times the files."""


class Place:
    """A target's valid files in a directory, to be altered, used and brought back."""

    def __init__(self, target: str, directory: Path):
        from loaders import TARGETS

        self.target, self._valid, self.path = TARGETS[target], directory / "valid", directory / "altered"
        self.target.make(self._valid)
        text = str(self._valid)
        for meta in self._valid.rglob("meta.json"):  # what it names by its path is in the altered copy
            meta.write_text(meta.read_text().replace(text, str(self.path)))
        self._original = (self._valid / self.target.file).read_bytes()
        self._renew()
        self._wanted = self._use()

    def _use(self) -> Any:
        import torch

        torch.manual_seed(0)
        return self.target.use(self.path)

    def _renew(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self._valid, self.path)

    def judge(self, mutation: str, seed: int) -> tuple[str, str]:
        """What became of an alteration: `used`, `refused` or `failed`, and the sentence."""
        self.target.alter(self.path, self._original, mutation, seed)
        same = mutation in {each.__name__ for each in SAME}
        known = (self.path / self.target.file).read_bytes() == self._original or self.target.checksum != "kept"
        try:
            with _patience(PATIENCE):
                found = self._use()
            if same and found is not None:
                assert_close(found, self._wanted, rtol=0, atol=0)
            return ("used", "") if known else ("failed", "used, and its sha256 is a different one")
        except UserError as error:
            said = str(error)
            if same and known:
                return "failed", f"refused, and its content is the same: {said}"
            if "\n" in said or "\r" in said:
                return "failed", f"more than a line: {said!r}"
            if not (re.search(r"/altered\b", said) and len(said) > 20):
                return "failed", f"names no file: {said}"
            return "refused", said
        except BaseException:
            return "failed", traceback.format_exc()
        finally:
            self._renew()


@contextmanager
def _patience(seconds: int) -> Iterator[None]:
    def out_of_it(*_: Any) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGPROF, out_of_it)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _shape(sentence: str) -> str:
    """A sentence without what differs from file to file."""
    return re.sub(r"'[^']*'|\S*/\S*|[\d.]+|\([^)]*\)", "·", sentence)[:70]


def _fuzz(target: str, seconds: float, first: int, results: Any) -> None:
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        place = Place(target, Path(directory))
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        size = sum(path.stat().st_size for path in place.path.rglob("*") if path.is_file())
        limit = _virtual() + 4 * 2**30
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        names, until, seed = [each.__name__ for each in place.target.mutations], time.monotonic() + seconds, first
        while time.monotonic() < until:
            mutation = names[seed % len(names)]
            results.put(("trying", mutation, seed, ""))
            outcome, said = place.judge(mutation, seed)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - base
            if grown > 1.5 * size + ROOM:
                outcome, said, base = "failed", f"took {grown / 2**20:.0f} MiB ({outcome})", base + grown
            results.put((outcome, mutation, seed, said))
            seed += 1


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def fuzz(target: str, seconds: float, first: int = 0) -> tuple[dict[str, int], dict[str, tuple[str, int]], list[str]]:
    """Outcomes with their counts, an alteration for each kind of sentence, and what failed."""
    context = multiprocessing.get_context("fork")
    counts, kinds, failures = {"used": 0, "refused": 0, "failed": 0}, {}, []
    until, trying = time.monotonic() + seconds, None
    while (left := until - time.monotonic()) > 0:
        results = context.SimpleQueue()
        process = context.Process(target=_fuzz, args=(target, left, first, results), daemon=True)
        process.start()
        while process.is_alive() or not results.empty():
            if results.empty():
                time.sleep(0.01)
                continue
            outcome, mutation, seed, said = results.get()
            if outcome == "trying":
                trying = (mutation, seed)
                continue
            trying, first = None, seed + 1
            counts[outcome] += 1
            if outcome == "failed":
                failures.append(f"{target} {mutation} {seed}: {said}")
            kinds.setdefault(
                f"{outcome} {_shape(said)}" if outcome != "failed" else f"{outcome} {seed}", (mutation, seed)
            )
        if trying:  # the process died of it
            counts["failed"] += 1
            failures.append(f"{target} {trying[0]} {trying[1]}: the process ended with {process.exitcode}")
            first = trying[1] + 1
            trying = None
        elif process.exitcode:
            raise SystemExit(f"{target} can't be fuzzed: its process ended with {process.exitcode}")
    return counts, kinds, failures


def main() -> None:
    import loaders as targets
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=60.0)
    parser.add_argument("targets", nargs="*", default=list(targets.TARGETS))
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--corpus", action="store_true")
    options = parser.parse_args()
    total, corpus, failed = {"used": 0, "refused": 0, "failed": 0}, [], []
    for target in options.targets:
        counts, kinds, failures = fuzz(target, options.seconds, options.first)
        print(f"{target:24}" + "".join(f"{name} {count:6}   " for name, count in counts.items()), flush=True)
        for line in failures:
            print(f"  {line}", flush=True)
        total = {name: total[name] + count for name, count in counts.items()}
        corpus += [[target, *recipe] for recipe in kinds.values()]
        failed += failures
    print(f"{'all':24}" + "".join(f"{name} {count:6}   " for name, count in total.items()))
    if options.corpus:
        known = json.loads(CORPUS.read_text()) if CORPUS.exists() else []
        merged = known + [recipe for recipe in corpus if recipe not in known]
        CORPUS.write_text("[\n" + ",\n".join(json.dumps(recipe) for recipe in merged) + "\n]\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
