"""Run directories: everything a run was made with and gave, readable without running any code from it.

runs/<name>/config.yaml           the frozen config
            meta.json             kind, versions, git commit, hardware, seed, parent run, command
            metrics.jsonl         one object a line
            tb/                   TensorBoard events
            checkpoints/<step>/   model.safetensors, state.pt, manifest.json (sha256 of each)
            activations/ videos/ analyses/
"""

import importlib.metadata
import json
import os
import pickle
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from rl_interp.core.config import to_plain
from rl_interp.core.errors import RunError, unknown
from rl_interp.core.files import atomic_path, sha256, verify, write_json, write_text

RUNS = Path("runs")
_PACKAGES = ("rl-interp", "torch", "numpy", "gymnasium", "ale-py", "minigrid", "crafter")


class Run:
    """One run directory. `Run.create` makes one, `Run.open` reads one."""

    def __init__(self, path: Path):
        self.path = path
        self._tensorboard = None

    @classmethod
    def create(cls, path: Path | str, kind: str, config: Any, seed: int, parent: dict[str, Any] | None = None) -> "Run":
        """Make the directory with `config.yaml` and `meta.json`.

        Args:
            kind: what made the run, e.g. "dqn" or "sae".
            config: a dataclass, or a tree of plain values.
            parent: for a run made from another: its path, checkpoint step and hook.

        Raises:
            RunError: the directory already holds a run.
        """
        run = cls(Path(path))
        if (run.path / "meta.json").exists():
            raise RunError(f"{path} already holds a run; choose another name, or remove it to start again.")
        run.path.mkdir(parents=True, exist_ok=True)
        write_text(run.path / "config.yaml", yaml.safe_dump(to_plain(config), sort_keys=False))
        write_json(run.path / "meta.json", {"kind": kind, "seed": seed, "parent": to_plain(parent), **provenance()})
        return run

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """Read an existing run, given as a path or as a name under `runs/`."""
        given = Path(path)
        for candidate in (given, RUNS / given):
            if (candidate / "meta.json").is_file() and (candidate / "config.yaml").is_file():
                return cls(candidate)
        known = sorted(p.parent.name for p in RUNS.glob("*/meta.json"))
        raise RunError(unknown("run", str(path), known) + " A run is a directory with config.yaml and meta.json.")

    @property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))

    @property
    def meta(self) -> dict[str, Any]:
        return json.loads((self.path / "meta.json").read_text(encoding="utf-8"))

    # -- metrics ---------------------------------------------------------------------------------

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line to `metrics.jsonl` and the scalars to TensorBoard."""
        line = json.dumps({"step": step, **values}, allow_nan=False)
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._tensorboard is None:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(self.path / "tb"), purge_step=step)
        for name, value in values.items():
            if isinstance(value, int | float):
                self._tensorboard.add_scalar(name, value, step)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; a last line cut off by a crash is left out."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        complete = path.read_text(encoding="utf-8").rpartition("\n")[0]
        return [json.loads(line) for line in complete.splitlines()]

    def rewind(self, step: int) -> None:
        """Drop metrics logged after `step`: a run resumed from there logs them again."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None

    # -- checkpoints -----------------------------------------------------------------------------

    def checkpoint_steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        return sorted(int(p.name) for p in (self.path / "checkpoints").glob("*") if p.name.isdigit())

    def save_checkpoint(
        self, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any] | None = None, keep: int = 2
    ) -> Path:
        """Write `checkpoints/<step>/` atomically and drop all but the newest `keep` (0 keeps all).

        `state` is a tree of tensors, numbers, strings, lists and dicts: what `torch.load` reads back
        with `weights_only=True`.
        """
        target = self.path / "checkpoints" / str(step)
        with atomic_path(target) as temporary:
            temporary.mkdir()
            save_file(
                {name: w.detach().cpu().contiguous() for name, w in weights.items()}, temporary / "model.safetensors"
            )
            if state is not None:
                torch.save(dict(state), temporary / "state.pt")
            files = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
            write_json(temporary / "manifest.json", {"step": step, "files": files})
        for old in self.checkpoint_steps()[:-keep] if keep else []:
            shutil.rmtree(self.path / "checkpoints" / str(old))
        return target

    def checkpoint(self, step: int | None = None) -> Path:
        """The directory of a verified checkpoint: the newest, or that of `step`."""
        steps = self.checkpoint_steps()
        if not steps:
            raise RunError(f"{self.path} has no checkpoint; train it further, or give another run.")
        if step is not None and step not in steps:
            raise RunError(unknown(f"checkpoint step of {self.path}", step, steps))
        path = self.path / "checkpoints" / str(steps[-1] if step is None else step)
        if not (path / "manifest.json").is_file():
            raise RunError(f"{path}/manifest.json is missing, so the checkpoint can't be verified; restore it.")
        try:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(
                f"{path}/manifest.json is no JSON ({error}); restore it, or use another checkpoint."
            ) from None
        verify(path, manifest["files"])
        return path

    def share(self, target: Path | str, step: int | None = None, half: bool = False) -> "Run":
        """Copy what others need to use the run, without what resuming needs: config, provenance, metrics, and the
        weights of one checkpoint (the newest, or that of `step`), in half precision if `half`."""
        source = self.checkpoint(step)
        with atomic_path(target) as temporary:
            temporary.mkdir()
            for name in ("config.yaml", "meta.json", "metrics.jsonl"):
                if (self.path / name).is_file():
                    shutil.copy(self.path / name, temporary / name)
            weights = load_file(source / "model.safetensors")
            if half:
                weights = {name: w.half() if w.is_floating_point() else w for name, w in weights.items()}
            Run(temporary).save_checkpoint(int(source.name), weights)
        return Run(Path(target))

    def load_weights(self, step: int | None = None) -> dict[str, Tensor]:
        """The checkpoint's weights; half-precision ones come back as float32."""
        weights = load_file(self.checkpoint(step) / "model.safetensors")
        return {name: w.float() if w.is_floating_point() else w for name, w in weights.items()}

    def has_state(self, step: int) -> bool:
        """Whether the checkpoint holds the training state; one that was shared holds the weights only."""
        return (self.path / "checkpoints" / str(step) / "state.pt").is_file()

    def load_state(self, step: int | None = None) -> dict[str, Any]:
        """The checkpoint's training state, read without executing anything from it."""
        path = self.checkpoint(step) / "state.pt"
        if not path.is_file():
            raise RunError(f"{path.parent} holds weights only, so training can't resume from it; start a new run.")
        try:
            return torch.load(path, weights_only=True, map_location="cpu")
        except pickle.UnpicklingError as error:
            raise RunError(
                f"{path} holds something that is not plain data and was not loaded ({str(error).splitlines()[0]}); it "
                "was not written by this suite."
            ) from None


def load_into(module: torch.nn.Module, weights: Mapping[str, Tensor], source: Path | str) -> None:
    """Load weights, or raise a `RunError` that names the first tensor that does not fit."""
    wanted = module.state_dict()
    for name in wanted.keys() | weights.keys():
        have = tuple(weights[name].shape) if name in weights else "nothing"
        want = tuple(wanted[name].shape) if name in wanted else "nothing"
        if have != want:
            raise RunError(
                f"{source} is of another architecture: {name!r} is {have} there and {want} in "
                f"{type(module).__name__}; open it with the config it was made with."
            )
    module.load_state_dict(dict(weights))


def provenance() -> dict[str, Any]:
    """Versions, git commit, hardware, time and command: what a result needs to be made again."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = _git("rev-parse", "HEAD")
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions,
        "git": {"commit": commit, "dirty": bool(_git("status", "--porcelain")) if commit else None},
        "hardware": hardware(),
    }


def hardware() -> dict[str, Any]:
    """The processor, its vector extension, cores and accelerator."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    return {
        "cpu": model,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _git(*args: str) -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
