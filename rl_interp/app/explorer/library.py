"""The runs that can be opened, and those that are: agents, their copies and dictionaries, and recordings of them."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

from rl_interp.agents.load import AGENT_KINDS, Loaded, load_agent
from rl_interp.analysis.episodes import Recipe, Recording, record
from rl_interp.analysis.player import Moment
from rl_interp.analysis.sae.feature import Catalogue
from rl_interp.analysis.sae.runs import LoadedSAE, load_autoencoder
from rl_interp.app.explorer.wire import places
from rl_interp.core.agent import Agent
from rl_interp.core.envs import LabelledEnv, make_labelled
from rl_interp.core.envs.editing import Editable
from rl_interp.core.envs.labelled import Concept
from rl_interp.core.errors import RunError, UserError, unknown
from rl_interp.core.progress import Progress, Update
from rl_interp.core.run import Run, run_folders

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Newest(Generic[K, V]):
    """The values used last, at most so many; for several threads."""

    def __init__(self, count: int):
        self._count, self._values, self._lock = count, OrderedDict[K, V](), Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> V:
        """Keep a value; returns the one that is there already, if another thread was first."""
        with self._lock:
            value = self._values.setdefault(key, value)
            self._values.move_to_end(key)
            while len(self._values) > self._count:
                self._values.popitem(last=False)
            return value

    def drop(self, key: K) -> None:
        with self._lock:
            self._values.pop(key, None)

    def items(self) -> list[tuple[K, V]]:
        with self._lock:
            return list(self._values.items())


@dataclass
class Opened:
    """An agent's run that pages look at. Each answer has a copy of the agent of its own, as hooks are placed on it."""

    loaded: Loaded
    sae: LoadedSAE | None
    recordings: Newest[Recipe, Recording] = field(default_factory=lambda: Newest(_RECORDINGS))
    tracks: Newest[Hashable, Any] = field(default_factory=lambda: Newest(_TRACKS))
    _clusters: Newest[Hashable, Any] = field(default_factory=lambda: Newest(_CLUSTERS))
    _idle: list[Agent] = field(default_factory=list)
    _places: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def dictionary(self) -> LoadedSAE:
        """Raises `UserError` where none is open."""
        if self.sae is None:
            raise UserError("no dictionary is open; choose one of this agent's, or fit one with rl-interp sae fit.")
        return self.sae

    def clusters(self, key: Hashable, find: Callable[[], V]) -> V:
        """A layer's clusters as they were found before, or found now."""
        return self._clusters.get(key) or self._clusters.put(key, find())

    def places(self, loaded: Loaded, moment: Moment, at: str) -> dict[str, Any]:
        """Where a hook point's positions look, which is the same in every moment."""
        if at not in self._places:
            self._places[at] = places(loaded, moment, at)
        return self._places[at]

    @cached_property
    def catalogue(self) -> Catalogue:
        """The dictionary's features, one by one."""
        return Catalogue(self.dictionary)

    @cached_property
    def editable(self) -> bool:
        """Whether states of the agent's environment can be edited."""
        return isinstance(self._env, Editable)

    @cached_property
    def concepts(self) -> Mapping[str, Concept]:
        """The ground truth that there is in the agent's environment."""
        return self._env.concepts

    @cached_property
    def _env(self) -> LabelledEnv:
        """To be asked what it has, not to be played."""
        return make_labelled(self.loaded.env)

    @contextmanager
    def agent(self, wanted: Callable[[], None]) -> Iterator[Loaded]:
        """The run with an agent that nobody else uses meanwhile, and that stops deciding when `wanted` raises."""
        try:
            agent = self._idle.pop()
        except IndexError:
            agent = copy.deepcopy(self.loaded.agent)
        with _stoppable(agent, wanted):
            yield replace(self.loaded, agent=agent)
        if len(self._idle) < _COPIES:  # one that was given up amid its work is not used again
            self._idle.append(agent)

    def recording(self, recipe: Recipe, wanted: Callable[[], None]) -> Recording:
        """The episode of a recipe, of which no step is played that another recording has."""
        if (found := self.recordings.get(recipe)) is not None:
            return found
        if recipe.steps > MAX_STEPS:
            raise UserError(f"an episode of {recipe.steps} steps was asked for; here at most {MAX_STEPS} are kept.")
        known = [each for _, each in self.recordings.items()]
        beginning = max(known, key=lambda each: min(recipe.same_for(each.recipe), each.steps), default=None)
        with self.agent(wanted) as loaded:
            made = record(loaded, recipe, self.sae, beginning, Asking(wanted))
        made = replace(made, loaded=self.loaded)
        if beginning is not None and min(recipe.same_for(beginning.recipe), made.steps) > beginning.steps:
            self.recordings.drop(beginning.recipe)  # the new one has all of it
        return self.recordings.put(recipe, made)


@contextmanager
def _stoppable(agent: Agent, wanted: Callable[[], None]) -> Iterator[None]:
    """Have an agent ask `wanted` before it decides. By its class, so that a copy of it, such as one with its weights
    shuffled, asks too, and decides by itself."""
    kind: Any = type(agent)

    class Stoppable(kind):
        def step(self, *args: Any, **named: Any) -> Any:
            wanted()
            return super().step(*args, **named)

        def unroll(self, *args: Any, **named: Any) -> Any:
            wanted()
            return super().unroll(*args, **named)

    Stoppable.__name__ = kind.__name__
    agent.__class__ = Stoppable
    try:
        yield
    finally:
        agent.__class__ = kind


class Asking(Progress):
    """Stops what takes long where nobody waits for it."""

    def __init__(self, wanted: Callable[[], None]):
        self._wanted = wanted

    @contextmanager
    def bar(self, title: str, total: float, unit: str) -> Iterator[Update]:
        yield lambda done, note="": self._wanted()


class Library:
    """Runs by the names that pages know them by; a page can't name any other path."""

    def __init__(self, runs: Sequence[str] = (), dictionaries: Sequence[str] = ()):
        """
        Args:
            runs: runs, by name or path, or folders of runs; none: those of `run_folders`.
            dictionaries: runs of dictionaries, beside those that lie in the same folders.

        Raises:
            RunError: one that is not there.
        """
        self._folders = [Path(each) for each in runs if _holds_runs(Path(each))] if runs else run_folders()
        self._named = [Run.open(each).path for each in runs if not _holds_runs(Path(each))]
        self._named += [Run.open(each).path for each in dictionaries]
        # A run that is named is found, and so are the dictionaries that lie beside it.
        self._beside = sorted({path.parent for path in self._named} - set(self._folders))
        self._opened: Newest[tuple[str, int | None, str | None], Opened] = Newest(_OPENED)

    def paths(self) -> dict[str, Path]:
        """Where each run lies, by its name: of several of one name the first, as `Run.open` takes it; a second that was
        named itself, by its path."""
        found: dict[str, Path] = {}
        for path in self._named:
            found[path.name if path.name not in found else str(path)] = path
        for path in (each for folder in self._folders for each in _runs_in(folder)):
            found.setdefault(path.name, path)
        return found

    def entries(self) -> list[dict[str, Any]]:
        """Every run, with what it is and what can be done with it, or why nothing can."""
        paths = self.paths()
        described = [_described(key, path) for key, path in paths.items()]
        dictionaries = self.dictionaries()
        for each in described:
            each["dictionaries"] = dictionaries.get(each.get("weights"), [])
        return described

    def dictionaries(self) -> dict[str | None, list[dict[str, str]]]:
        """Dictionaries by the checksum of the weights that they were fitted to: name and hook point."""
        found: dict[str | None, list[dict[str, str]]] = {}
        for key, path in self._all().items():
            try:
                meta = Run(path).meta
            except (UserError, OSError):
                continue
            parent = meta.get("parent") or {}
            if meta["kind"] == "sae" and "target" not in parent and isinstance(parent.get("hook"), str):
                found.setdefault(parent.get("weights_sha256"), []).append({"name": key, "hook": parent["hook"]})
        return found

    def _all(self) -> dict[str, Path]:
        beside = {path.name: path for folder in self._beside for path in _runs_in(folder)}
        return beside | self.paths()

    def path_of(self, name: str) -> Path:
        """Where a dictionary lies.

        Raises:
            RunError: there is none of that name among those that may be opened.
        """
        known = self._all()
        if name not in known:
            raise RunError(unknown("dictionary", name, known))
        return known[name]

    def open(self, run: str, step: int | None = None, sae: str | None = None) -> Opened:
        """An agent's run, with a dictionary on it if one is named.

        Raises:
            RunError: no such run among those that may be opened, one that holds no agent, or a dictionary of another.
        """
        key = run, step, sae
        if (found := self._opened.get(key)) is not None:
            return found
        paths = self.paths()
        if run not in paths:
            raise RunError(unknown("run", run, paths))
        loaded = load_agent(paths[run], step, "cpu")
        fitted = None if sae is None else self._dictionary(sae, loaded)
        return self._opened.put(key, Opened(loaded, fitted))

    def _dictionary(self, name: str, loaded: Loaded) -> LoadedSAE:
        fitted = load_autoencoder(self.path_of(name), "cpu", (loaded,))
        if fitted.agent.weights_sha256 != loaded.weights_sha256:
            raise RunError(
                f"{name} is a dictionary of {fitted.agent.run.path}, and this is {loaded.run.path}; open it with its "
                "own agent."
            )
        return fitted


MAX_STEPS = 10_000
_OPENED, _RECORDINGS, _TRACKS, _CLUSTERS, _COPIES = 6, 12, 6, 12, 2


def _holds_runs(path: Path) -> bool:
    return path.is_dir() and not (path / "meta.json").is_file()


def _runs_in(folder: Path) -> list[Path]:
    return sorted(meta.parent for meta in folder.glob("*/meta.json"))


def _described(key: str, path: Path) -> dict[str, Any]:
    run = Run(path)
    try:
        kind, parent = run.meta["kind"], run.meta.get("parent") or {}
        entry: dict[str, Any] = {"name": key, "kind": kind}
        if kind == "sae":
            return entry | {"problem": f"a dictionary on {parent.get('hook')}: open the agent that it was fitted to"}
        if kind not in AGENT_KINDS:
            return entry | {"problem": f"a run of kind {kind}, which holds no agent"}
        env, step = run.config.get("env", {}).get("id", ""), run.newest_step()
        return entry | {"env": str(env), "steps": run.checkpoint_steps(), "weights": run.weights_sha256(step)}
    except (UserError, OSError) as error:
        return {"name": key, "kind": "", "problem": str(error)}
