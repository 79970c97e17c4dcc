"""Run directories: everything a run was made with and gave, readable without running any code from it.

runs/<name>/config.yaml           the frozen config
            meta.json             kind, versions, git commit, hardware, seed, parent run, command
            metrics.jsonl         one object a line
            tb/                   TensorBoard events, the same figures
            checkpoints/<step>/   model.safetensors, state.pt, manifest.json (sha256 of each)
            history/<step>/       model.safetensors, in half precision, manifest.json: of --keep-checkpoints
            activations/ videos/ analyses/
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from rl_interp.core.config import to_plain
from rl_interp.core.errors import RunError, require_numbers, unknown
from rl_interp.core.events import EventFile
from rl_interp.core.files import (
    append_line,
    atomic_path,
    remove,
    sha256,
    sync,
    verify,
    write_json,
    write_text,
)
from rl_interp.core.locks import writing
from rl_interp.core.provenance import provenance
from rl_interp.core.read import MAX_YAML, read_json, read_json_lines, read_manifest, read_yaml, reading, require
from rl_interp.core.weights import Weights, check_fit, read_state

RUNS = Path("runs")
"""Where new runs go."""
_CHECKPOINT = ("manifest.json", "model.safetensors", "state.pt")
_SHARED = (
    "config.yaml", "meta.json", "metrics.jsonl",
    "checkpoints/*/manifest.json", "checkpoints/*/model.safetensors",
)  # fmt: skip
"""What a checkpoint and a shared run consist of."""


FOLDERS = "RL_INTERP_RUNS"
"""The environment variable that names further folders with runs, as PATH does."""


def run_folders() -> list[Path]:
    """Where a run given by its name is looked for, in this order: `runs/`, the folders of $RL_INTERP_RUNS, the checkout
    that the suite is imported from, and the runs that an installed suite brings along."""
    named = [Path(folder) for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]
    folders: dict[Path, Path] = {}
    for folder in (RUNS, *named, *_brought_along()):
        if folder == RUNS or folder.is_dir():
            folders.setdefault(folder.resolve(), folder)  # one that is named twice is looked at once
    return list(folders.values())


def _brought_along() -> list[Path]:
    """The folders of the reference runs: of the checkout, and of an installed suite."""
    package = Path(__file__).parents[1]
    checkout = [package.parent / "runs"] if (package.parent / "pyproject.toml").is_file() else []
    return [*checkout, package / "runs"]


class Run:
    """One run directory. `Run.create` makes one, `Run.open` reads one."""

    def __init__(self, path: Path, outputs: Path | None = None):
        self.path = path
        self.outputs = outputs or path
        """Where activations, analyses and films of it go: into the run itself, except that a reference run found by its
        name from elsewhere is left as it is, and they go into `runs/<name>` of the working directory."""
        self._events: EventFile | None = None
        self._continues_after: int | None = None

    @classmethod
    def create(cls, path: Path | str, kind: str, config: Any, seed: int, parent: dict[str, Any] | None = None) -> "Run":
        """Make the directory with `config.yaml` and `meta.json`. A run of that kind that is there and has no checkpoint
        is begun anew, since there is nothing that could be done with it.

        Args:
            kind: what made the run, e.g. "dqn" or "sae".
            config: a dataclass, or a tree of plain values.
            parent: for a run made from another: its path, checkpoint step and hook.

        Raises:
            RunError: the directory already holds a run, or files of such names that are no run's; another command is
                writing it; or the configuration is larger than one that is read.
            UserError: the seed is negative.
        """
        require_numbers({"seed": seed}, at_least_0=("seed",))
        run = cls(Path(path))
        text = run._config_text(config)
        with run.writing():
            run._clear(kind)
            run.path.mkdir(parents=True, exist_ok=True)
            write_json(run.path / "meta.json", {"kind": kind, "seed": seed, "parent": to_plain(parent), **provenance()})
            write_text(run.path / "config.yaml", text)
        return run

    def extend(self, config: Any, before: int, now: int) -> None:
        """Write the configuration of a training that is made longer; `extended` in meta.json lists when that was.

        Args:
            before: environment steps that the run was to be trained for until now.
            now: environment steps from now on.
        """
        meta, text = self.meta, self._config_text(config)
        change = {"from": before, "to": now, "at": max(self.checkpoint_steps(), default=0)}
        extended = [each for each in meta.get("extended", []) if each["to"] < now]  # one may have been cut short
        when = {"when": datetime.now(UTC).isoformat(timespec="seconds")}
        write_json(self.path / "meta.json", meta | {"extended": [*extended, change | when]})
        write_text(self.path / "config.yaml", text)

    def _config_text(self, config: Any) -> str:
        text = yaml.safe_dump(to_plain(config), sort_keys=False)
        if len(text.encode()) > MAX_YAML:
            raise RunError(
                f"{self.path}/config.yaml would have {len(text.encode())} bytes, more than the {MAX_YAML} that are "
                "read; keep large values in a file of their own and name it in the config."
            )
        return text

    def _clear(self, kind: str) -> None:
        """Remove what a training of this kind that never came to a checkpoint has written, and nothing else."""
        if self.checkpoint_steps():
            raise RunError(f"{self.path} already holds a run; choose another name, or remove it to start again.")
        meta = self.path / "meta.json"
        if meta.exists():
            remedy = "give another name, or move it away"
            begun = read_json(meta, remedy)
            require(begun, meta, remedy, kind=str, seed=int, versions=dict)
            if begun["kind"] != kind:
                raise RunError(f"{meta} is of a run of kind {begun['kind']!r}, not {kind!r}; {remedy}.")
            self.rewind(None)
            shutil.rmtree(self.path / "replay", ignore_errors=True)
            return
        for name in ("config.yaml", "metrics.jsonl", "tb", "replay"):
            if (self.path / name).exists():
                raise RunError(f"{self.path / name} is there and no run is; give another name, or move it away.")

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """Read an existing run, given as a path or as a name in one of `run_folders`."""
        folders = run_folders()
        for folder in (None, *folders):
            candidate = Path(path) if folder is None else folder / path
            if os.path.isfile(candidate / "meta.json") and os.path.isfile(candidate / "config.yaml"):
                foreign = folder is not None and folder in _brought_along()
                return cls(candidate, RUNS / path if foreign else None)
        known = dict.fromkeys(meta.parent.name for folder in folders for meta in sorted(folder.glob("*/meta.json")))
        raise RunError(
            f"{unknown('run', str(path), known)} Looked for as a path and in {', '.join(map(str, folders))}; a run is "
            f"a directory with config.yaml and meta.json, and {FOLDERS} may name more folders."
        )

    @property
    def config(self) -> dict[str, Any]:
        return read_yaml(self.path / "config.yaml")

    @property
    def meta(self) -> dict[str, Any]:
        path = self.path / "meta.json"
        meta = read_json(path)
        require(meta, path, kind=str, seed=int)
        if meta.get("parent") is not None:
            require(meta, path, parent=dict)
        return meta

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run's lock for the length of the block; see `rl_interp.core.locks.writing`."""
        with writing(self.path):
            yield

    # -- metrics ---------------------------------------------------------------------------------

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line to `metrics.jsonl` and the scalars to TensorBoard.

        Raises:
            RunError: the disk is full; no half of the line is left.
        """
        append_line(self.path / "metrics.jsonl", json.dumps({"step": step, **values}, allow_nan=False))
        if self._events is None:
            self._events = EventFile(self.path / "tb", self._continues_after)
            self._continues_after = None
        self._events.add(step, {name: value for name, value in values.items() if isinstance(value, int | float)})

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; a last line cut off by a crash is left out."""
        path = self.path / "metrics.jsonl"
        if not path.exists() or not path.stat().st_size:  # opened by a training that is about to write the first
            return []
        lines = read_json_lines(path, "restore it, or remove it if the curves are not needed")
        for number, line in enumerate(lines, 1):
            require(line, f"line {number} of {path}", step=int)
        return lines

    def rewind(self, step: int | None) -> None:
        """Drop metrics logged after `step`, and weights kept of later steps, or all of them: a run resumed from there
        writes them again. TensorBoard drops its points when the next are written."""
        for later in self.history_steps():
            if step is None or later > step:
                remove(self.path / "history" / str(later))
        path = self.path / "metrics.jsonl"
        if step is None:
            path.unlink(missing_ok=True)
            shutil.rmtree(self.path / "tb", ignore_errors=True)
        elif path.exists():
            kept = "".join(json.dumps(line) + "\n" for line in self.metrics() if line["step"] <= step)
            if not kept:
                path.unlink()
            elif kept != path.read_text(encoding="utf-8"):
                write_text(path, kept)
        self.close()
        self._continues_after = step

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    # -- checkpoints -----------------------------------------------------------------------------

    def checkpoint_steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        return _steps_in(self.path / "checkpoints")

    def history_steps(self) -> list[int]:
        """Steps of which the weights alone are kept, to see how the agent came about; ascending."""
        return _steps_in(self.path / "history")

    def newest_step(self) -> int:
        """The step of the newest checkpoint."""
        if not (steps := self.checkpoint_steps()):
            raise RunError(f"{self.path} has no checkpoint; train it further, or give another run.")
        return steps[-1]

    def save_checkpoint(
        self, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any] | None = None, keep: int = 2
    ) -> Path:
        """Write `checkpoints/<step>/` atomically and drop all but the newest `keep` (0 keeps all).

        `state` is a tree of tensors, numbers, strings, lists and dicts: what `torch.load` reads back
        with `weights_only=True`.
        """
        target = self.path / "checkpoints" / str(step)
        if (self.path / "metrics.jsonl").exists():
            sync(self.path / "metrics.jsonl")  # what was logged before the checkpoint lasts as long as it does
        _write_checkpoint(target, step, weights, state)
        for old in self.checkpoint_steps()[:-keep] if keep else []:
            remove(self.path / "checkpoints" / str(old))
        return target

    def keep_weights(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Write `history/<step>/`, in half precision, which stays whatever checkpoints come and go."""
        _write_checkpoint(self.path / "history" / str(step), step, _half(weights))

    def checkpoint(self, step: int | None = None) -> Path:
        """The directory of a verified checkpoint: the newest, or that of `step`, which may be of the history."""
        if step is None:
            step = self.newest_step()
        elif step not in (steps := sorted({*self.checkpoint_steps(), *self.history_steps()})):
            raise RunError(unknown(f"checkpoint step of {self.path}", step, steps))
        path = self._directory(step)
        remedy = "restore it, or use another checkpoint"
        if not os.path.isfile(path / "manifest.json"):
            raise RunError(f"{path}/manifest.json is missing, so the checkpoint can't be verified; {remedy}.")
        manifest = read_manifest(path, ["model.safetensors"], remedy)
        require(manifest, path / "manifest.json", remedy, step=int)
        if str(manifest["step"]) != path.name:
            raise RunError(f"{path}/manifest.json is of step {manifest['step']}, not {path.name}; {remedy}.")
        if self.has_state(int(path.name)) and "state.pt" not in manifest["files"]:
            raise RunError(f"{path}/manifest.json does not list state.pt, so it can't be verified; {remedy}.")
        with reading(path, remedy):
            verify(path, manifest["files"])
        return path

    def share(self, target: Path | str, step: int | None = None, half: bool = False) -> "Run":
        """Copy what others need to use the run, without what resuming needs: config, provenance, metrics, and the
        weights of one checkpoint (the newest, or that of `step`), in half precision if `half`.

        Raises:
            RunError: `target` is a directory that holds anything but such a copy.
        """
        source = self.checkpoint(step)
        with atomic_path(target, _SHARED) as temporary:
            temporary.mkdir()
            for name in ("config.yaml", "meta.json", "metrics.jsonl"):
                if (self.path / name).is_file():
                    shutil.copyfile(self.path / name, temporary / name)
            weights = Weights(source / "model.safetensors", infinite=("threshold",)).load()
            Run(temporary).save_checkpoint(int(source.name), _half(weights) if half else weights)
        return Run(Path(target))

    def weights_sha256(self, step: int) -> str:
        """The checksum of a checkpoint's weights, from its manifest; results made from the weights record it."""
        return read_manifest(self._directory(step), ["model.safetensors"])["files"]["model.safetensors"]

    def load_weights(self, step: int | None = None) -> dict[str, Tensor]:
        """The checkpoint's weights; half-precision ones come back as float32."""
        return self.weights(step).load()

    def weights(self, step: int | None = None, infinite: Sequence[str] = ()) -> Weights:
        """The checkpoint's weights, opened: names, shapes and types are known, values are read when asked for. Those
        named in `infinite` may have infinite values."""
        return Weights(self.checkpoint(step) / "model.safetensors", "restore it, or use another checkpoint", infinite)

    def _directory(self, step: int) -> Path:
        folder = "checkpoints" if step in self.checkpoint_steps() or step not in self.history_steps() else "history"
        return self.path / folder / str(step)

    def has_state(self, step: int) -> bool:
        """Whether the checkpoint holds the training state; a shared one holds the weights only."""
        return (self.path / "checkpoints" / str(step) / "state.pt").is_file()

    def load_state(self, step: int | None = None) -> dict[str, Any]:
        """The checkpoint's training state, read without executing anything from it."""
        path = self.checkpoint(step) / "state.pt"
        if not path.is_file():
            raise RunError(f"{path.parent} holds weights only, so training can't resume from it; start a new run.")
        remedy = "restore it, or use another checkpoint"
        state = read_state(path, remedy)
        if not isinstance(state, dict):
            raise RunError(f"{path} holds a {type(state).__name__}, where the state of a training is wanted; {remedy}.")
        return state


def _steps_in(folder: Path) -> list[int]:
    names = [path.name for path in folder.glob("*")]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and name == str(int(name)))


def _write_checkpoint(
    target: Path, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any] | None = None
) -> None:
    with atomic_path(target, _CHECKPOINT) as temporary:
        temporary.mkdir()
        save_file(_apart(weights), temporary / "model.safetensors")
        if state is not None:
            with open(temporary / "state.pt", "wb") as file:  # a path would be opened where no error has a number
                torch.save(dict(state), file)
        files = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
        write_json(temporary / "manifest.json", {"step": step, "files": files})


def _half(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In half precision, but for tensors with a number beyond its largest, 65,504, which stay as they are."""
    halves = {name: w.half() if w.is_floating_point() else w for name, w in weights.items()}
    return {name: half if half.isinf().equal(weights[name].isinf()) else weights[name] for name, half in halves.items()}


def _apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are saved: each in memory of its own, tied ones once for each name. A module that ties them does
    so again when they are loaded."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, weight in weights.items():
        weight = weight.detach().cpu().contiguous()
        if weight.untyped_storage().data_ptr() in taken:
            weight = weight.clone()
        taken.add(weight.untyped_storage().data_ptr())
        found[name] = weight
    return found


def load_into(module: torch.nn.Module, weights: Mapping[str, Tensor], source: Path | str) -> None:
    """Load weights, or raise a `RunError` that names the first tensor that does not fit."""
    check_fit(module, {name: tuple(weight.shape) for name, weight in weights.items()}, source)
    module.load_state_dict(dict(weights))
