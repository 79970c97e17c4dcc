"""What is worth doing after a command: the one place that knows."""

import shlex
from collections.abc import Mapping
from string import Formatter
from typing import Any

NEXT = {
    "train": "rl-interp saliency {run}",
    "train dreamerv3": "rl-interp imagine {run}",
    "train beso": "rl-interp denoise samplers {run}",
    "evaluate": "rl-interp saliency {run}",
    "import": "rl-interp evaluate {run}",
    "study": "rl-interp saliency {run}/training/RUN",
    "study self-ablation": "rl-interp evaluate RUN --ablated",
    "study training": "rl-interp probe {run} --hooks {hook}",
    "study maze": "rl-interp maze field {run}/training/RUN",
    "collect": "rl-interp sae fit {run} --hook {hook}",
    "probe": "rl-interp collect {run} --hook HOOK",
    "erase": "rl-interp collect {run} --hook {hook}",
    "maps": "rl-interp collect {run} --hook HOOK",
    "sae fit": "rl-interp sae evaluate {run}",
    "sae evaluate": "rl-interp sae report {run}",
    "sae test": "rl-interp sae report {run}",
    "sae report": "rl-interp sae test {run}",
    "sae compare": "rl-interp sae report {run}",
    "sae sweep": "rl-interp sae evaluate {run}/RUN",
    "sae push": "rl-interp sae pull {repo} --folder {folder} --output DIR",
    "sae pull": "python -c 'from rl_interp import sae; print(sae.load(\"{sae}\"))'",
    "circuit break": "rl-interp circuit importance {run}",
    "circuit report": "rl-interp circuit evaluate {run} {circuit}",
    "circuit compare": "rl-interp circuit report {run} {circuit}",
    "circuit discover": "rl-interp circuit evaluate {run} {circuit}",
    "circuit evaluate": "rl-interp circuit discover {run} --method acdc",
    "circuit importance": "rl-interp collect {run} --hook {units[0][hook]}",
    "saliency": "rl-interp saliency evaluate {run}",
    "saliency evaluate": "rl-interp saliency {run} --method {best}",
    "imagine": "rl-interp probe {run} --hooks deter stoch",
    "denoise samplers": "rl-interp saliency {run}",
    "denoise decide": "rl-interp saliency {run} --target q:dy",
    "maze goals": "rl-interp maze field RUN",
    "maze field": "rl-interp maze steer {run}",
    "maze retarget": "rl-interp maze steer {run}",
    "maze steer": "rl-interp maze retarget {run} --hook {hook} --channel {searches[channels][found][0]}",
    "maze saliency": "rl-interp saliency {run}",
    "explore": "rl-interp saliency RUN",
    "sokoban probe": "rl-interp sokoban film {run}",
    "sokoban channels": "rl-interp sokoban steer {run}",
    "sokoban steer": "rl-interp sokoban think {run}",
    "sokoban think": "rl-interp sokoban channels {run}",
    "sokoban film": "rl-interp sokoban steer {run}",
    "info": "rl-interp demo",
    "demo": "rl-interp sae test {sae[run]}",
}
"""By a command's words, or those of its group: the next command, with parts of the result in braces. Capitals stand for
what is to be chosen."""

INSTEAD = {
    "sae report": ("continuous", (True,), "rl-interp sae compare {run} OTHER"),
    "saliency": ("observation", ("vector",), "rl-interp probe {run} --hooks HOOK"),
    "saliency evaluate": ("best", (None,), "rl-interp probe {run} --hooks HOOK"),
    "train beso": ("objective", ("mse", "mixture"), "rl-interp saliency {run}"),
}
"""The same for results with an entry of one of some values: there the usual command asks for what there is not."""


class _Quoted(Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        return shlex.quote(str(value))


def next_command(command: str, result: Mapping[str, Any]) -> str | None:
    """The command to go on with after `command`, whose result has its names; None where the result lacks them."""
    line = NEXT.get(command) or NEXT.get(command.partition(" ")[0])
    if command in INSTEAD:
        entry, values, other = INSTEAD[command]
        line = other if result.get(entry) in values else line
    try:
        return line and _Quoted().vformat(line, (), result)
    except (LookupError, TypeError):
        return None
