"""`make full-disk`: every command that writes meets a full disk, at a random fill level, on a real small file system.

    PYTHONPATH=.:tests python tests/reliability/full_disk.py [FULL DISKS] [SEED]

It needs the right to mount a tmpfs. What is checked: the command ends with status 1 and one sentence that says so and
names a path, without a traceback; whatever has its name is whole, and a store that was there is as it was; nothing is
left over; and when there is room, the same command ends as if nothing had happened.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import COMMANDS, Command, at, check_metrics, check_no_leftovers, check_whole, contents, play, require
from kill import make_home

SIZE = 512 << 20
WRITERS = [
    *(command for command in COMMANDS if "actors" not in command.name),
    Command("sae evaluate", "sae evaluate dictionary --episodes 1", "dictionary"),
    Command("sae report", "sae report dictionary --top 1 --clips 0 --maps 0", "dictionary"),
    Command("probe", "probe agent --hooks conv2.post --samples 200", "agent/analyses"),
    Command("maps", "maps agent --hooks conv2.post --states 40 --clusters 2", "agent/analyses"),
]


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of `SIZE` at `place`."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)
        place.rmdir()


def free(place: Path) -> int:
    now = os.statvfs(place)
    return now.f_bavail * now.f_frsize


def play_whole(command: Command, home: Path, place: Path) -> tuple[int, dict[str, object]]:
    """The most bytes that the command takes, and what it makes."""
    with small_disk(place):
        shutil.copytree(home, place, dirs_exist_ok=True)
        before, least = free(place), [SIZE]
        with at(place):
            outcome = play(command.line, meanwhile=lambda: least.append(min(least.pop(), free(place))))
            require(outcome.status == 0, command.line, outcome)
            return before - least[0], contents(Path("runs") / command.made)


def fill_and_go_on(
    command: Command, home: Path, place: Path, peak: int, made: dict[str, object], rng: random.Random
) -> bool:
    """Run the command on a disk too small for it, then with room, and check; returns whether the disk was full."""
    with small_disk(place):
        shutil.copytree(home, place, dirs_exist_ok=True)
        with at(place):
            path, runs, ballast = Path("runs") / command.made, Path("runs"), Path("ballast")
            before = contents(path) if path.exists() else {}
            with open(ballast, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, free(place) - rng.choice([0, rng.randrange(max(1, peak))]))
            outcome = play(command.line)
            full = outcome.status != 0
            if full:
                require(outcome.status == 1, f"{command.line}: another status than 1", outcome)
                require("the disk is full" in outcome.output, f"{command.line}: the sentence is missing", outcome)
                require("runs/" in outcome.output, f"{command.line}: the path is missing", outcome)
            require("Traceback" not in outcome.output, f"{command.line}: a traceback", outcome)
            check_whole(runs)
            check_no_leftovers(runs)
            if full and command.name == "collect":
                require(contents(path) == before, f"{command.line}: the old store is not as it was")
            ballast.unlink()
            outcome = play(command.line)
            require(outcome.status == 0, f"{command.line}: with room again", outcome)
            check_whole(runs)
            check_no_leftovers(runs)
            check_metrics(path)
            if command.exact:
                again = contents(path)
                different = [name for name in made.keys() | again.keys() if made.get(name) != again.get(name)]
                require(not different, f"{command.line}: after a full disk {different} are not the same bits")
    return full


def main(wanted: int = 20, seed: int = 0, only: str = "") -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        make_home(scratch / "home")
        commands = [command for command in WRITERS if only in command.name]
        wholes, in_a_row = {}, 0
        counts = dict.fromkeys((command.name for command in commands), 0)
        while sum(counts.values()) < wanted or not all(counts.values()):
            command = min(commands, key=lambda each: counts[each.name])
            if command not in wholes:
                wholes[command] = play_whole(command, scratch / "home", scratch / "disk")
            full = fill_and_go_on(command, scratch / "home", scratch / "disk", *wholes[command], rng)
            counts[command.name] += full
            in_a_row = 0 if full else in_a_row + 1
            require(in_a_row < 20, f"{command.line}: it had room 20 times in a row; does it write what it did before?")
            print(f"{sum(counts.values()):4d} full disks; {command.name}{'' if full else ' had room'}", flush=True)
    print(
        f"{sum(counts.values())} full disks (seed {seed}): each one sentence, nothing lost, half-written or left over."
    )
    for name, count in counts.items():
        print(f"{count:4d}  {name}")


if __name__ == "__main__":
    main(*(int(each) for each in sys.argv[1:3]), *sys.argv[3:4])
