"""The command line: `rl-interp COMMAND ...`.

A command is a function in `app/commands/`; `COMMANDS` below says which words call it. Only the module of the command
that is asked for is imported: lists of commands are made from the docstrings in the sources. It returns a JSON-ready
dict, of which a person sees the figures, and what to do next, and `--json` prints the whole.
"""

import ast
import importlib
import json
import os
import re
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache, partial, wraps
from inspect import getdoc, signature
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, get_args, get_type_hints

import tyro
from rich.text import Text

from rl_interp.app.commands.flags import REGISTRY, Must
from rl_interp.app.glossary import explained
from rl_interp.app.next import next_command
from rl_interp.app.progress import console, printable, say, show_log
from rl_interp.core.code import trust
from rl_interp.core.errors import UserError, require_numbers, unknown
from rl_interp.core.interrupt import Interrupted

Command = Callable[..., dict[str, Any]]
Table = Mapping[str, "str | Table"]

COMMANDS: dict[str, Table] = {
    "Agents": {
        "train": {
            "dqn": "train:train_dqn",
            "impala": "train:train_impala",
            "dreamerv3": "train:train_dreamerv3",
            "transformer": "train:train_transformer",
            "beso": "train:train_beso",
        },
        "evaluate": "evaluate:evaluate",
        "import": {
            "agent": "imports:import_agent",
            "sb3": "imports:import_sb3",
            "cleanrl": "imports:import_cleanrl",
            "dreamerv3": "imports:import_dreamerv3",
            "drc": "imports:import_drc",
            "maze": "imports:import_maze",
            "lm": "imports:import_lm",
        },
        "study": {
            "cbet": "study:study_cbet",
            "transfer": "study:study_transfer",
            "maze": "study:study_maze",
            "self-ablation": "study:study_self_ablation",
            "training": "study:study_training",
        },
    },
    "Layers": {
        "collect": "collect:collect",
        "probe": "probe:probe_run",
        "erase": "probe:erase",
        "maps": "maps:maps",
        "sae": {
            "fit": "sae:sae_fit",
            "evaluate": "sae:sae_evaluate",
            "test": "sae:sae_test",
            "report": "sae:sae_report",
            "compare": "sae:sae_compare",
            "sweep": "sae:sae_sweep",
            "push": "sae:sae_push",
            "pull": "sae:sae_pull",
        },
    },
    "Circuits": {
        "circuit": {
            "importance": "circuit:circuit_importance",
            "discover": "circuit:circuit_discover",
            "evaluate": "circuit:circuit_evaluate",
            "report": "circuit:circuit_page",
            "compare": "circuit:circuit_compare",
            "break": "circuit:circuit_break",
        }
    },
    "Behaviour": {
        "explore": "explore:explore",
        "saliency": "saliency:saliency",
        "saliency evaluate": "saliency:saliency_evaluate",
        "saliency time": "saliency:saliency_time",
        "imagine": "imagine:imagine",
        "denoise": {"samplers": "denoise:denoise_samplers", "decide": "denoise:denoise_decide"},
        "maze": {
            "goals": "maze:maze_goals",
            "field": "maze:maze_field",
            "retarget": "maze:maze_retarget",
            "steer": "maze:maze_steer",
            "saliency": "maze:maze_saliency",
        },
        "sokoban": {
            "probe": "sokoban:sokoban_probe",
            "channels": "sokoban:sokoban_channels",
            "steer": "sokoban:sokoban_steer",
            "think": "sokoban:sokoban_think",
            "film": "sokoban:sokoban_film",
        },
    },
    "This installation": {"info": "info:info", "demo": "demo:demo"},
}
"""Every command, under the headings of `rl-interp --help`: its words, and `module:function` in `app/commands/`. Two
words stand together where the first is a command of its own."""

_CONFIG = {
    "--config.kind": "--config.variant",
    "--config.revive": "--config.resample",
    "--config.no-revive": "--config.no-resample",
}
RENAMED: dict[str, dict[str, str]] = {
    "train": {"--run": "--name"},
    "import": {"--run": "--name"},
    **{f"study {kind}": {"--run": "--name"} for kind in ("cbet", "transfer", "maze")},
    "sae fit": {
        "--as": "--name",
        "--kind": "--variant",
        "--revive": "--resample",
        "--no-revive": "--no-resample",
    },
    "sae sweep": {"--as": "--name", "--kinds": "--variants", **_CONFIG},
    "demo": {"--decisions": "--steps", **_CONFIG},
    "saliency": {"--decisions": "--steps"},
}
"""Flags by their names of earlier versions, for commands that begin so; taken for this version, with a notice."""

_LINES = 10
"""The longest list that is printed for people; `--json` gives all."""


@dataclass(frozen=True)
class Output:
    """Flags of every command, wherever they stand."""

    json: bool = False
    """Print the result as one JSON object on stdout."""
    debug: bool = False
    """Show the traceback of an error."""
    trust: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Run the code of the file with this sha256, which a run names, now and later."""
    explain: bool = False
    """Explain each term of the result in a line."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 1 for an error, 2 for bad usage, 130 when stopped."""
    output, arguments = tyro.cli(
        Output,
        args=sys.argv[1:] if argv is None else argv,
        return_unknown_args=True,
        add_help=False,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    signal.signal(signal.SIGTERM, _stopped)
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # games draw for films, and never in a window
    show_log()
    try:
        for digest in output.trust:
            trust(digest)
        command, result = _run(arguments)
    except KeyboardInterrupt as error:
        said = str(error) or "stopped; every file written so far is whole."
        console.print(Text(printable(said)), highlight=False, soft_wrap=True)
        return 130
    except (UserError, OSError) as error:
        if output.debug:
            traceback.print_exc()
        say("error:", "red", str(error))
        return 1
    if output.json:
        print(json.dumps(result, allow_nan=False))
    else:
        _show(result)
    if output.explain:
        _explain(result, sys.stderr if output.json else sys.stdout)
    if not output.json and (following := next_command(command, result)):
        say("next:", "cyan", following)
    return 0


def _run(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The command's words and its result."""
    words, place = [], {word: entry for commands in COMMANDS.values() for word, entry in commands.items()}
    while not isinstance(place, str):
        word, *rest = arguments or [""]
        if (two := " ".join(arguments[:2])) in place:
            word, rest = two, arguments[2:]
        if word not in place:
            _say_what_there_is(words, place, word)
        words.append(word)
        place, arguments = place[word], rest
    arguments = _with_new_names(" ".join(words), arguments)
    command = _checked(load(place))
    if make := getattr(command, "config_from", None):
        command = partial(command, config=make(arguments))
    result = tyro.cli(command, prog=" ".join(("rl-interp", *words)), args=arguments, registry=REGISTRY)
    return " ".join(words), result


def load(place: str) -> Command:
    """The function at `module:function`."""
    module, _, name = place.partition(":")
    command = getattr(importlib.import_module(f"rl_interp.app.commands.{module}"), name)
    # tyro breaks the text of an argument where the docstring does: so its lines are joined.
    command.__doc__ = re.sub(r"\n {8,}", " ", getdoc(command) or "")
    return command


def _with_new_names(command: str, arguments: list[str]) -> list[str]:
    # Those of a command, or of a group of which it is one.
    alone = {word for commands in COMMANDS.values() for word, entry in commands.items() if isinstance(entry, str)}
    renamed = {old: new for words, flags in RENAMED.items() for old, new in flags.items()
               if command == words or (words not in alone and command.startswith(f"{words} "))}  # fmt: skip
    found = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if new := renamed.get(flag.replace("_", "-")):
            say("notice:", "cyan", f"{flag} is called {new} now; the next version will not know the old name.")
            argument = new + equals + value
        found.append(argument)
    return found


def _checked(command: Command) -> Command:
    """The command, with its numbers looked at before its work begins."""
    hints = get_type_hints(command, include_extras=True)

    @wraps(command)
    def checked(*args: Any, **flags: Any) -> dict[str, Any]:
        for name, value in signature(command).bind(*args, **flags).arguments.items():
            _check(name, value, hints[name])
        return command(*args, **flags)

    return checked


def _check(name: str, value: object, hint: object) -> None:
    for bound in bounds(hint):
        require_numbers({name: value}, **{bound.be: (name,)})
    if is_dataclass(value):
        for field, of in get_type_hints(type(value), include_extras=True).items():
            _check(field, getattr(value, field), of)


def bounds(hint: object) -> Iterator[Must]:
    """What an annotation says that a number must be; also within an optional one, or a tuple."""
    if isinstance(hint, Must):
        yield hint
    for each in get_args(hint):
        yield from bounds(each)


def _say_what_there_is(words: list[str], table: Table, word: str) -> None:
    """Print a list of commands and exit: as help, also where nothing follows, or as what to choose from."""
    asked = word in ("", "-h", "--help")
    if not asked:
        say("error:", "red", unknown("command", " ".join((*words, word)), [" ".join((*words, each)) for each in table]))
        raise SystemExit(2)
    headings = {"": table} if words else COMMANDS
    about = _about(table) if words else _DESCRIPTION
    width = max(len(each) for commands in headings.values() for each in commands)
    usage = f"usage: {' '.join(('rl-interp', *words))} [-h] [--json] [--explain] [--debug] COMMAND ..."
    lines = [usage, "", *_wrapped(about)]
    for heading, commands in headings.items():
        lines += ["", f"{heading or 'Commands'}:"]
        for each, entry in commands.items():
            lines += _wrapped(_about(entry), f"  {each.ljust(width)}  ", " " * (width + 4))
    lines += ["", *_wrapped(_EVERYWHERE)]
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    raise SystemExit(0 if asked else 2)


_DESCRIPTION = (
    "Train reinforcement-learning agents, open their hidden layers, and test every claim by intervening. "
    "`rl-interp COMMAND --help` lists a command's flags."
)
_EVERYWHERE = (
    "Every command takes --json, to print its result as one JSON object on stdout, --explain, to explain each term of "
    "it, --debug, to show the traceback of an error, and --trust SHA256, to run the code of a file that a run names, "
    "now and later."
)


def _wrapped(text: str, before: str = "", indent: str = "") -> list[str]:
    width = min(120, shutil.get_terminal_size().columns)
    return textwrap.wrap(text, width, initial_indent=before, subsequent_indent=indent)


def _about(entry: "str | Table") -> str:
    """What a command is for, or the commands of a group, which share a module: the first paragraph of the docstring."""
    first = entry
    while not isinstance(first, str):
        first = next(iter(first.values()))
    module, _, name = first.partition(":")
    tree = _source(module)
    at = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == name]
    said = ast.get_docstring(at[0] if isinstance(entry, str) else tree) or ""
    return said.partition("\n\n")[0].replace("\n", " ")


@cache
def _source(module: str) -> ast.Module:
    return ast.parse(Path(__file__).with_name("commands").joinpath(f"{module}.py").read_text(encoding="utf-8"))


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


def _explain(result: dict[str, Any], file: TextIO) -> None:
    print("\nTerms:", file=file)
    terms = [(printable(term), line or "not in the glossary") for term, line in explained(result)]
    width = min(24, max((len(term) for term, _ in terms), default=0))
    for term, line in terms:
        print("\n".join(_wrapped(line, f"  {term.ljust(width)}  ", " " * (width + 4))), file=file)


def _missing(result: dict[str, Any], key: str) -> str:
    """Why a value that there is has no interval."""
    from rl_interp.core.stats import TOO_FEW

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
