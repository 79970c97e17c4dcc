"""`make kill`: every long command is killed at random moments and run again, and must end as if nothing had happened.

    PYTHONPATH=.:tests python tests/reliability/kill.py [KILLS] [SEED]

Half of the kills come after a random time, half just before a random thing that the command does to a file, where the
moments that matter are. What is checked after each kill: whatever has its name is whole, and a store that was there is
there. After the command was run again: it ends well and without a traceback, with the same bits as one that was not
killed where that is promised; nothing that was saved is learned again; no line of metrics is there twice, TensorBoard
shows what they say; and nothing is left over.
"""

import random
import shutil
import sys
import tempfile
from pathlib import Path

from harness import (
    COMMANDS,
    MADE_BEFORE,
    Command,
    Outcome,
    at,
    check_metrics,
    check_no_leftovers,
    check_whole,
    contents,
    play,
    require,
)

from rl_interp.core.run import Run
from rl_interp.core.store import ActivationStore


def make_home(home: Path) -> None:
    """An agent, its activations and a dictionary."""
    home.mkdir()
    with at(home):
        for line in MADE_BEFORE:
            outcome = play(line)
            require(outcome.status == 0, line, outcome)


def play_whole(command: Command, home: Path, scratch: Path) -> tuple[Outcome, dict[str, object]]:
    """The command without a kill: how it went, and what it made."""
    place = scratch / "whole"
    shutil.copytree(home, place)
    with at(place):
        outcome = play(command.line)
        require(outcome.status == 0, command.line, outcome)
        made = contents(Path("runs") / command.made)
    shutil.rmtree(place)
    return outcome, made


def kill_and_go_on(
    command: Command, home: Path, scratch: Path, whole: Outcome, made: dict[str, object], rng: random.Random
) -> int:
    """Kill the command once or more often, run it to its end, and check; returns the kills."""
    place, kills = scratch / "place", 0
    shutil.copytree(home, place)
    with at(place):
        path = Path("runs") / command.made
        kept: dict[int, list[dict[str, object]]] = {}
        while not kills or rng.random() < 0.4:
            if rng.random() < 0.5:
                outcome = play(command.line, seconds=rng.uniform(0, whole.seconds))
            else:
                outcome = play(command.line, operation=rng.randrange(whole.operations))
            if outcome.status is not None:  # it was done before
                require(outcome.status == 0, f"{command.line}: it failed by itself", outcome)
                break
            kills += 1
            check_whole(Path("runs"))
            if command.name == "collect":
                ActivationStore(path)
            if (path / "checkpoints").is_dir() and (steps := Run(path).checkpoint_steps()):
                kept[steps[-1]] = [line for line in Run(path).metrics() if line["step"] <= steps[-1]]
        outcome = play(command.line)
        require(outcome.status == 0, f"{command.line}: after {kills} kills", outcome)
        require("Traceback" not in outcome.output, f"{command.line}: a traceback", outcome)
        check_whole(Path("runs"))
        check_no_leftovers(Path("runs"))
        check_metrics(path)
        for step, lines in kept.items():
            now = [line for line in Run(path).metrics() if line["step"] <= step]
            require(now == lines, f"{command.line}: what was saved at {step} was learned again: {lines} became {now}")
        if command.exact:
            again = contents(path)
            require(again.keys() == made.keys(), f"{command.line}: {again.keys() ^ made.keys()} differ")
            different = [name for name in made if made[name] != again[name]]
            require(not different, f"{command.line}: after {kills} kills {different} are not the same bits")
    shutil.rmtree(place)
    return kills


def main(wanted: int = 40, seed: int = 0, only: str = "") -> None:
    rng, counts = random.Random(seed), {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        make_home(scratch / "home")
        commands = [command for command in COMMANDS if only in command.name]
        wholes = {}
        while sum(counts.values()) < wanted:
            command = min(commands, key=lambda each: counts.get(each.name, 0))
            if command not in wholes:
                wholes[command] = play_whole(command, scratch / "home", scratch)
            kills = kill_and_go_on(command, scratch / "home", scratch, *wholes[command], rng)
            counts[command.name] = counts.get(command.name, 0) + kills
            print(f"{sum(counts.values()):4d} kills; {command.name}: {kills}", flush=True)
    print(f"{sum(counts.values())} kills (seed {seed}): nothing lost, doubled, half-written or left over.")
    for name, count in counts.items():
        print(f"{count:4d}  {name}")


if __name__ == "__main__":
    main(*(int(each) for each in sys.argv[1:3]), *sys.argv[3:4])
