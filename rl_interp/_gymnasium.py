"""Tells Gymnasium of the mazes and Sokoban, so that `gymnasium.make("rl_interp/Maze-v0", region=5)` works once both
packages are imported, in either order.

Gymnasium takes a tenth of PyTorch's time to import and not every program needs it, so it is not imported for this: if
it is not there yet, its import is watched for.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def announce() -> None:
    """Register them now if Gymnasium is imported, else as soon as it is."""
    if "gymnasium" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Watcher())


def _register() -> None:
    import gymnasium

    gymnasium.register("rl_interp/Maze-v0", entry_point="rl_interp.core.envs.maze.labelled:make")
    gymnasium.register("rl_interp/Sokoban-v0", entry_point="rl_interp.core.envs.sokoban.labelled:make")


class _Watcher(MetaPathFinder):
    """Lets the others find Gymnasium, and has the two registered when it is imported, after which it is gone. Looking
    for Gymnasium without importing it changes nothing."""

    def __init__(self) -> None:
        self._asking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "gymnasium" or self._asking:
            return None
        self._asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                sys.meta_path.remove(self)
                execute(module)
                _register()

            spec.loader.exec_module = execute_and_register
        return spec
