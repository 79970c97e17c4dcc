"""A request of the page, read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes import Recipe, Recording, parse_changes
from rl_interp.analysis.player import Moment
from rl_interp.app.explorer.library import Library, Opened
from rl_interp.core.config import from_plain
from rl_interp.core.errors import UserError
from rl_interp.core.interventions import Intervention


@dataclass(frozen=True)
class Asked:
    """A request: what it is about, and whether somebody still waits for the answer."""

    library: Library
    body: Mapping[str, Any]
    wanted: Callable[[], None]

    def text(self, name: str, most: int = 1000) -> str:
        value = self.body.get(name)
        if not isinstance(value, str) or len(value) > most:
            raise UserError(f"the request has no text {name!r}.")
        return value

    def number(self, name: str) -> int:
        value = self.body.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise UserError(f"the request has no whole number {name!r}.")
        return value

    def texts(self, name: str, most: int = 50) -> tuple[str, ...]:
        """None where there is no such list."""
        value = self.body.get(name, [])
        if not isinstance(value, list) or len(value) > most or not all(isinstance(each, str) for each in value):
            raise UserError(f"the request's {name!r} is no list of at most {most} texts.")
        return tuple(value)

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self.body.get(name)
        if not isinstance(value, Mapping):
            raise UserError(f"the request has no {name!r}.")
        return value

    def opened(self) -> Opened:
        step = None if self.body.get("checkpoint") is None else self.number("checkpoint")
        sae = None if self.body.get("sae") is None else self.text("sae")
        return self.library.open(self.text("run"), step, sae)

    def recipe(self) -> Recipe:
        recipe = self.body.get("recipe")
        if not isinstance(recipe, Mapping):
            raise UserError("the request has no recipe of an episode.")
        return from_plain(Recipe, recipe, "the page's address")

    def changes(self, loaded: Loaded) -> list[Intervention]:
        """Those that are switched on, of an agent in the episode that is asked about."""
        recipe = self.recipe()
        return parse_changes(self.texts("changes"), loaded, self.opened().sae, recipe.maze, recipe.seed)

    def recording(self) -> Recording:
        return self.opened().recording(self.recipe(), self.wanted)

    def moment(self) -> Moment:
        return self.recording().moment(self.number("step"))
