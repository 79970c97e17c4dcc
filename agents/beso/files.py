"""Demonstrations in folders: the suite's own, Minari's, and the published ones of kitchen and block pushing. Nothing in
one is run."""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.agents.beso.data import Demonstrations
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.files import atomic_path, sha256, verify, write_json
from rl_interp.core.locks import writing
from rl_interp.core.read import RESTORE, first_line, open_file, read_manifest, reading

_ARRAYS = ("states", "actions", "starts")
_OURS = tuple(f"{name}.npy" for name in _ARRAYS)
_MINARI, _MINARI_VERSION, _VERSIONED = Path("data", "main_data.hdf5"), "0.5.0", re.compile(r"-v\d+$")


def load_demonstrations(folder: Path | str) -> Demonstrations:
    """Of a folder, whichever of these it has.

    - `manifest.json` with `states.npy`, `actions.npy` and `starts.npy`: what `save_demonstrations` writes.
    - `data/main_data.hdf5`: a data set of Minari's; needs h5py. Of observations that are dicts, `observation` is read.
    - `observations_seq.npy`, `actions_seq.npy`, `existence_mask.npy`: kitchen, as Shafiullah et al. 2022 (arXiv
      2206.11251) published it; arrays lead with time, then episodes.
    - `multimodal_push_observations.npy`, `..._actions.npy`, `..._masks.npy`: block pushing, by the same; arrays lead
    with episodes, then time.

    Of the published ones, in which each step has a state and an action, an episode ends with the state before its last
    action, which is left out.

    Raises:
        UserError: none of these, ragged episodes, or values that are not finite.
        RunError: a file that is damaged or altered.
    """
    folder = Path(folder)
    for file, load in _LOADERS.items():
        if (folder / file).is_file():
            return load(folder)
    raise UserError(
        f"{folder} has no demonstrations; wanted is a folder with one of {', '.join(map(str, _LOADERS))}, as "
        "save_demonstrations, Minari or the published data sets have it."
    )


def save_demonstrations(demonstrations: Demonstrations, folder: Path | str, minari: bool = False) -> None:
    """Write a folder that `load_demonstrations` reads.

    Args:
        minari: write a data set of Minari's, HDF5 (needs h5py), instead of the suite's. `minari.load_dataset` finds it
            by name where the folder is named as data sets are, NAME-vN, in $MINARI_DATASETS_PATH.
    """
    folder = Path(folder)
    if minari:
        _save_minari(demonstrations, folder)
        return
    with writing(folder), atomic_path(folder, ("manifest.json", *_OURS)) as temporary:
        temporary.mkdir()
        for name in _ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(demonstrations, name), allow_pickle=False)
        digests = {name: sha256(temporary / name) for name in _OURS}
        write_json(temporary / "manifest.json", {"episodes": len(demonstrations), "files": digests})


def _own(folder: Path) -> Demonstrations:
    verify(folder, read_manifest(folder, _OURS)["files"])
    states, actions, starts = (_array(folder / name) for name in _OURS)
    fits = states.ndim == actions.ndim == 2 and starts.ndim == 1 and len(states) == len(actions)
    if not fits or len(starts) < 2 or starts[0] != 0 or starts[-1] != len(states) or (np.diff(starts) < 2).any():
        raise RunError(f"{folder} holds arrays that do not fit one another; {RESTORE}.")
    parts = [(states[a:b], actions[a : b - 1]) for a, b in pairwise(starts)]
    return Demonstrations.of(parts, str(folder))


def _kitchen(folder: Path) -> Demonstrations:
    names = ("observations_seq.npy", "actions_seq.npy", "existence_mask.npy")
    return _masked(folder, *(np.swapaxes(_array(folder / name, 2), 0, 1) for name in names))


def _pushing(folder: Path) -> Demonstrations:
    names = (f"multimodal_push_{what}.npy" for what in ("observations", "actions", "masks"))
    return _masked(folder, *(_array(folder / name, 2) for name in names))


def _masked(folder: Path, states: NDArray[Any], actions: NDArray[Any], mask: NDArray[Any]) -> Demonstrations:
    """From `[E, T, ...]`, of which a mask `[E, T]` says how long each episode is."""
    if not (states.ndim == actions.ndim == 3 and mask.shape == states.shape[:2] == actions.shape[:2]):
        raise UserError(
            f"{folder} has states {states.shape}, actions {actions.shape} and a mask {mask.shape}, once episodes lead; "
            "wanted are [E, T, S], [E, T, A] and [E, T]."
        )
    there = mask > 0
    lengths = there.sum(1)
    for number in np.flatnonzero((there != (np.arange(mask.shape[1]) < lengths[:, None])).any(1)):
        raise UserError(f"episode {number} of {folder} is ragged, with steps after its end by the mask; mend the mask.")
    parts = [(states[i, :n], actions[i, : n - 1]) for i, n in enumerate(lengths)]
    return Demonstrations.of(parts, str(folder))


def _minari(folder: Path) -> Demonstrations:
    path, parts, h5py = folder / _MINARI, [], _h5py()
    with reading(path, RESTORE, "is no HDF5 file of Minari's"), h5py.File(path, "r") as file:
        for number in range(len(file)):
            group = file[f"episode_{number}"]
            states = group["observations"]
            states = states if hasattr(states, "shape") else states["observation"]
            parts.append((np.asarray(states), np.asarray(group["actions"])))
    return Demonstrations.of(parts, str(path))


def _save_minari(demonstrations: Demonstrations, folder: Path) -> None:
    h5py = _h5py()
    with writing(folder), atomic_path(folder, ("data",)) as temporary:
        (temporary / _MINARI).parent.mkdir(parents=True)
        with h5py.File(temporary / _MINARI, "w") as file:
            for number in range(len(demonstrations)):
                states, actions = demonstrations.episode(number)
                group = file.create_group(f"episode_{number}")
                group.attrs.update({"id": number, "total_steps": len(actions)})
                ended = np.arange(len(actions)) == len(actions) - 1
                group.create_dataset("observations", data=states)
                group.create_dataset("actions", data=actions)
                group.create_dataset("rewards", data=ended.astype(np.float32))
                group.create_dataset("terminations", data=ended)
                group.create_dataset("truncations", data=np.zeros_like(ended))
        size = round((temporary / _MINARI).stat().st_size / 1e6, 1)
        write_json(temporary / _MINARI.with_name("metadata.json"), _described(demonstrations, folder.name) | {
            "dataset_size": size,
        })  # fmt: skip


def _described(demonstrations: Demonstrations, name: str) -> dict[str, Any]:
    """What Minari must be told of a data set, of which the spaces are strings of JSON."""
    spaces = {
        f"{what}_space": json.dumps({
            "type": "Box", "dtype": "float32", "shape": [width], "low": [-np.inf] * width, "high": [np.inf] * width,
        })
        for what, width in (
            ("observation", demonstrations.states.shape[1]), ("action", demonstrations.actions.shape[1])
        )
    }  # fmt: skip
    return spaces | {
        "dataset_id": name if _VERSIONED.search(name) else f"{name}-v0",
        "minari_version": _MINARI_VERSION,
        "data_format": "hdf5",
        "total_episodes": len(demonstrations),
        "total_steps": demonstrations.steps,
    }


def _h5py() -> Any:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("a data set of Minari's needs h5py; pip install 'rl-interp[robotics]', or h5py.") from None
    return h5py


def _array(path: Path, at_least: int = 1) -> NDArray[Any]:
    """An array of numbers; a pickled one is refused."""
    with open_file(path, RESTORE) as file:
        try:
            array = np.load(file, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise RunError(f"{path} is no array of numbers ({first_line(error)}); {RESTORE}.") from error
    if array.dtype.kind not in "biuf" or array.ndim < at_least:
        raise RunError(f"{path} holds {array.dtype} {array.shape}, where numbers are wanted; {RESTORE}.")
    return array


_LOADERS: dict[Path, Callable[[Path], Demonstrations]] = {
    Path("manifest.json"): _own,
    _MINARI: _minari,
    Path("observations_seq.npy"): _kitchen,
    Path("multimodal_push_observations.npy"): _pushing,
}
