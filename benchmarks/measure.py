"""What the benchmark scripts share: the result's form and how it is printed."""

import argparse
import importlib.metadata
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

import torch

from rl_interp.core.provenance import hardware

SKIPPED = 77
"""Exit status of a benchmark that needs what this machine lacks (as in Automake)."""


@dataclass(frozen=True)
class Result:
    """One measurement, larger figures better."""

    name: str
    unit: str
    ours: float
    peers: dict[str, float]
    """What a user would pick instead, measured in the same run."""
    limit: float | None = None
    """The most that the machine could give, as the script's docstring says."""
    details: dict[str, Any] = field(default_factory=dict)
    """Sizes and settings."""

    def json(self, packages: tuple[str, ...]) -> dict[str, Any]:
        best = max(self.peers.values()) if self.peers else None
        return asdict(self) | {
            "ratio_to_best_peer": self.ours / best if best else None,
            "fraction_of_limit": self.ours / self.limit if self.limit else None,
            "machine": hardware() | {"torch_threads": torch.get_num_threads()},
            "versions": {p: importlib.metadata.version(p) for p in ("torch", *packages)},
        }


def skip(reason: str) -> NoReturn:
    """End a script that can't measure here; `benchmarks.run` goes on with the others."""
    print(f"skipped: {reason}", file=sys.stderr)
    sys.exit(SKIPPED)


def main(measure: Callable[[], Result], packages: tuple[str, ...]) -> None:
    """Run one benchmark from the command line: a table, or with `--json` the result as one object."""
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    result = measure().json(packages)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{result['name']} ({result['unit']}; {result['machine']['torch_threads']} threads)")
    print(f"  {'ours':40s}{result['ours']:12,.1f}")
    for peer, figure in result["peers"].items():
        print(f"  {peer:40s}{figure:12,.1f}   ours is {result['ours'] / figure:.2f} times that")
    if result["limit"]:
        print(f"  {'limit':40s}{result['limit']:12,.1f}   ours is {result['fraction_of_limit']:.0%} of it")
    for name, value in result["details"].items():
        print(f"  {name}: {value}")
