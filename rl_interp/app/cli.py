"""The command line: `rl-interp COMMAND ...`.

Each command is a function whose arguments are its flags. It returns a JSON-ready dict, of which a
person sees the figures and `--json` prints the whole.
"""

import json
import signal
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from inspect import signature
from types import FrameType
from typing import Any

import tyro
from rich.text import Text

from rl_interp.app import commands
from rl_interp.app.progress import console, printable, say
from rl_interp.core.errors import UserError, require_numbers
from rl_interp.core.interrupt import Interrupted
from rl_interp.core.stats import TOO_FEW

COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "info": commands.info,
    "demo": commands.demo,
    "evaluate": commands.evaluate,
    "collect": commands.collect,
    "sae fit": commands.sae_fit,
    "sae evaluate": commands.sae_evaluate,
    "sae sweep": commands.sae_sweep,
    "sae test": commands.sae_test,
    "sae report": commands.sae_report,
    "sae compare": commands.sae_compare,
    "sae push": commands.sae_push,
    "sae pull": commands.sae_pull,
    "saliency": commands.saliency,
    "probe": commands.probe_run,
    "maps": commands.maps,
    "maze goals": commands.maze_goals,
    "maze field": commands.maze_field,
    "maze retarget": commands.maze_retarget,
    "maze steer": commands.maze_steer,
    "maze saliency": commands.maze_saliency,
    "imagine": commands.imagine,
    "import dreamerv3": commands.import_dreamerv3,
    "import maze": commands.import_maze,
    "study cbet": commands.study_cbet,
    "study transfer": commands.study_transfer,
    "study maze": commands.study_maze,
}
TRAINING = {
    "train dqn": (commands.dqn_command, ("env",)),
    "train impala": (commands.impala_command, ("env",)),
    "train dreamerv3": (commands.dreamerv3_command, ("env", "size")),
}
"""Commands whose defaults depend on what is asked for: makers of them, from the values of some flags and from whether
there is a bonus."""

NUMBERS: dict[str, tuple[str, ...]] = {
    "seed": ("seed",),
    "share": ("epsilon",),
    "at_least_1": (
        "samples", "decisions", "latents", "ks", "seeds", "states", "count", "top", "clusters", "side", "mazes",
        "units", "context", "horizon", "agent_steps", "jobs",
    ),
    "at_least_0": (
        "episodes", "checkpoint", "clips", "maps", "skip", "channel", "times", "region", "regions", "coefficient",
        "actors",
    ),
}  # fmt: skip
"""What the numbers among the commands' own flags must be, whichever command has them; configurations check theirs."""
_LINES = 10
"""The longest list that is printed for people; `--json` gives all."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 1 for an error, 2 for bad usage, 130 when stopped."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json, debug = _take(arguments, "--json"), _take(arguments, "--debug")
    signal.signal(signal.SIGTERM, _stopped)
    try:
        result = tyro.extras.subcommand_cli_from_dict(
            _commands(arguments), prog="rl-interp", description=_DESCRIPTION, args=arguments
        )
    except KeyboardInterrupt as error:
        said = str(error) or "stopped; every file written so far is whole."
        console.print(Text(printable(said)), highlight=False, soft_wrap=True)
        return 130
    except (UserError, OSError) as error:
        if debug:
            traceback.print_exc()
        say("error:", "red", str(error))
        return 1
    if as_json:
        print(json.dumps(result, allow_nan=False))
    else:
        _show(result)
    return 0


_DESCRIPTION = (
    "Train reinforcement-learning agents, open their hidden layers, and test every claim by intervening. Every command "
    "takes --json (the result as one JSON object on stdout) and --debug (the traceback of an error)."
)


def _commands(arguments: list[str]) -> dict[str, Callable[..., dict[str, Any]]]:
    """The commands, those that train with the defaults for what `arguments` name.

    Takes those flags and `--cbet` out of the arguments, and joins a command's two words.
    """
    commands_there = COMMANDS | {name: make() for name, (make, _) in TRAINING.items()}
    name = " ".join(arguments[:2])
    if name in commands_there:
        arguments[:2] = [name]
    if name in TRAINING:
        cbet = _take(arguments, "--cbet") or any(each.startswith("--cbet.") for each in arguments)
        make, flags = TRAINING[name]
        commands_there[name] = make(**{flag: _take_value(arguments, f"--{flag}") for flag in flags}, cbet=cbet)
    return {name: _checked(command) for name, command in commands_there.items()}


def _checked(command: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The command, with its numbers looked at before its work begins."""

    @wraps(command)
    def checked(*args: Any, **flags: Any) -> dict[str, Any]:
        require_numbers(signature(command).bind(*args, **flags).arguments, **NUMBERS)
        return command(*args, **flags)

    return checked


def _take_value(arguments: list[str], flag: str) -> str | None:
    for i, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            return arguments.pop(i).partition("=")[2]
        if argument == flag and i + 1 < len(arguments):
            del arguments[i]
            return arguments.pop(i)
    return None


def _take(arguments: list[str], flag: str) -> bool:
    found = flag in arguments
    if found:
        arguments.remove(flag)
    return found


def _stopped(number: int, frame: FrameType | None) -> None:
    raise Interrupted("stopped by SIGTERM; every file written so far is whole.")


def _show(result: dict[str, Any], indent: str = "") -> None:
    for name, value in ((str(name), value) for name, value in result.items()):
        key = printable(name)
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            _show(value, indent + "  ")
        elif isinstance(value, list) and len(value) > _LINES:
            print(f"{indent}{key}: {len(value)} values")
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            print(f"{indent}{key}:")
            for each in value:
                print(f"{indent}  " + ", ".join(f"{_short(n)} {_short(v)}" for n, v in each.items() if _is_short(v)))
        else:
            print(f"{indent}{key}: {_missing(result, name) if value is None else _short(value)}")


def _missing(result: dict[str, Any], key: str) -> str:
    """Of a value that there is, why it has no interval."""
    of = key.removesuffix("interval").removesuffix("_")
    return TOO_FEW if of != key and (of not in result or result[of] is not None) else "none"


def _is_short(value: object) -> bool:
    return not isinstance(value, (dict, list)) or len(value) <= 2


def _short(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_short, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


if __name__ == "__main__":
    sys.exit(main())
