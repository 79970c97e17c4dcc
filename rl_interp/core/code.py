"""Code that a run needs and does not hold: a function or class in a file of the user's, by name and hash.

A run is data, and loading one never executes anything that somebody else put into it. So a config names code as a
`Code`, and the code is imported only if this user trusts the file by its sha256: because he named it himself
(`code_of`), or said so (`trust`, on the command line `--trust SHA256`). A hash is that of the one file; what this
imports is found as by any script of Python's.
"""

import difflib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from rl_interp.core.errors import UserError, unknown
from rl_interp.core.files import append_line, sha256

TRUST = "RL_INTERP_TRUST"
"""The environment variable that names the file of trusted hashes, in place of `~/.config/rl-interp/trusted`."""

_REFERENCE = re.compile(r"(?P<where>.+):(?P<name>[^\W\d]\w*|\*)")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Code:
    """A function or class, as a config names it; `load_code` gives it."""

    reference: str
    """`path/to/file.py:name`, relative to the working directory as the names of runs are, or `package.module:name`;
    `package.module:*` for a module that is imported for what it does then, such as registering environments."""
    sha256: str
    """Of the source file."""

    def __post_init__(self) -> None:
        _parts(self.reference)
        _require_sha256(self.sha256)


def code_of(reference: str) -> Code:
    """The code that a user names himself, which trusts it for this user. Nothing is imported.

    Args:
        reference: `path/to/file.py:name` or `package.module:name`.

    Raises:
        UserError: the reference is of neither form, or there is no such file or module.
    """
    where, _ = _parts(reference)
    if not (path := _file(where)):
        raise UserError(_missing(reference))
    code = Code(reference, sha256(path))
    trust(code.sha256, path)
    return code


def load_code(code: Code) -> Callable[..., Any]:
    """Import what a config names, once, if this user trusts it.

    Raises:
        UserError: the file is missing, is not the one that was recorded, is not trusted, can't be imported, or has
            nothing of that name that can be called.
    """
    where, name = _parts(code.reference)
    module = import_code(code)
    if not hasattr(module, name):
        known = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        raise UserError(unknown(f"function of {where}", name, known))
    if not callable(found := getattr(module, name)):
        raise UserError(
            f"{code.reference} is of type {type(found).__name__}, which can't be called; name a function or a class."
        )
    return found


def import_code(code: Code) -> ModuleType:
    """Import the module that a config names code in, once, if this user trusts it.

    Raises:
        UserError: the file is missing, is not the one that was recorded, is not trusted, or can't be imported.
    """
    where, _ = _parts(code.reference)
    path = _verified(code)
    if code.sha256 not in _trusted():
        raise UserError(
            f"{code.reference} is code of {path} (sha256 {code.sha256}), which is run only if you trust it; read the "
            f"file, and if it does nothing but what it should, add --trust {code.sha256}."
        )
    return _guarded(code.reference, "can't be imported", lambda: _imported(where, path, code.sha256))


def call_code(code: Code, *args: Any, **kwargs: Any) -> Any:
    """What the code returns when it is called.

    Raises:
        UserError: as by `load_code`, or the code raised an error: which one, and in which line of its file.
    """
    function = load_code(code)
    return _guarded(code.reference, "raised an error", lambda: function(*args, **kwargs))


def trust(sha256: str, path: Path | None = None) -> None:
    """Trust a source file for this user, now and later.

    Args:
        path: where it lies. It is found there again from other working directories.

    Raises:
        UserError: that is no sha256, or the file of trusted hashes can't be written.
    """
    _require_sha256(sha256)
    place = "" if path is None else str(path.resolve())
    line = f"{sha256}  {place}" if place.isprintable() and place else sha256
    if line in _lines():
        return
    file = _trust_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        append_line(file, line)
    except OSError as error:
        raise UserError(
            f"{file}, the list of code that you trust, can't be written ({error.strerror}); set {TRUST} to a file that "
            "can."
        ) from error


def _parts(reference: str) -> tuple[str, str]:
    """The file or module, and the name in it."""
    match = _REFERENCE.fullmatch(reference)
    if not match or not (_is_file(match["where"]) or all(map(str.isidentifier, match["where"].split(".")))):
        raise UserError(
            f"{reference!r} given as code; name a function in a file, such as my.py:make, or in a module, such as "
            "package.module:make."
        )
    return match["where"], match["name"]


def _is_file(where: str) -> bool:
    return where.endswith(".py")


def _require_sha256(digest: str) -> None:
    if not _SHA256.fullmatch(digest):
        raise UserError(f"{digest!r} given as the sha256 of a file; it must be 64 hexadecimal digits.")


def _verified(code: Code) -> Path:
    """The file that the code was recorded from: where it is said to be, or where this user has trusted it."""
    where, _ = _parts(code.reference)
    found = _file(where)
    trusted = [Path(line[66:]) for line in _lines() if line.startswith(f"{code.sha256}  ")]
    for path in [*filter(None, [found]), *filter(Path.is_file, trusted)]:
        if sha256(path) == code.sha256:
            return path
    if found is None:
        raise UserError(_missing(code.reference))
    raise UserError(
        f"{found} has changed since {code.reference} was recorded: its sha256 is {sha256(found)}, not {code.sha256}; "
        "restore that version, or make a new run with this one."
    )


def _file(where: str) -> Path | None:
    """The source file of a path or module, if there is one. Nothing is imported, parent packages neither."""
    if _is_file(where):
        path = Path(where).expanduser().resolve()
        return path if path.is_file() else None
    spec = _spec(where, None) or _spec(where, [os.getcwd()])  # as by `python -m`
    return Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None


def _spec(module: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """What Python would import a module from, with its outermost package in one of `path`, by default `sys.path`."""
    parent, _, _ = module.rpartition(".")
    if parent:
        package = _spec(parent, path)
        path = package.submodule_search_locations if package else None
        if path is None:
            return None
    specs = (finder.find_spec(module, path) for finder in sys.meta_path)
    return next((spec for spec in specs if spec is not None), None)


def _missing(reference: str) -> str:
    where, name = _parts(reference)
    if _is_file(where):
        beside = sorted(path.name for path in Path(where).expanduser().parent.glob("*.py"))
        near = difflib.get_close_matches(Path(where).name, beside, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return (
            f"there is no file {where} in {os.getcwd()}{hint}, which is to have {name!r}; go to its folder, "
            "or give its path."
        )
    return (
        f"there is no source file of a module {where!r}, which is to have {name!r}; install it, or give the file, as "
        f"in {where.replace('.', '/')}.py:{name}."
    )


def _imported(where: str, path: Path, digest: str) -> ModuleType:
    if _is_file(where):
        return _imported_file(path, digest)
    if _spec(where, None) is None:
        _put_first(path.parents[where.count(".") + (path.name == "__init__.py")])
    return importlib.import_module(where)


def _imported_file(path: Path, digest: str) -> ModuleType:
    """A module of a name of its own, so that it stands in no other's way, made of the very bytes that were trusted."""
    place = hashlib.sha256(f"{digest} {path}".encode()).hexdigest()[:12]
    name = f"_rl_interp_{path.stem}_{place}"
    if name in sys.modules:
        return sys.modules[name]
    source = path.read_bytes()
    if hashlib.sha256(source).hexdigest() != digest:
        raise UserError(f"{path} was changed while it was being read; run the command again.")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    module = importlib.util.module_from_spec(spec)
    if not sys.flags.safe_path:
        _put_first(path.parent)
    sys.modules[name] = module  # as importlib does: dataclasses and pickles look there
    try:
        exec(compile(source, path, "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _put_first(folder: Path) -> None:
    """Put a folder first among those that modules are imported from, as Python does with that of a script."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()


def _guarded(reference: str, what: str, do: Callable[[], Any]) -> Any:
    """What `do` returns; what the user's code raises in it becomes a sentence."""
    try:
        return do()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        message = str(error).strip().partition("\n")[0]
        said = f"{type(error).__name__}: {message}" if message else type(error).__name__
        raise UserError(f"{reference} {what}: {said}{_line(reference, error)}; mend it there.") from error


def _line(reference: str, error: BaseException) -> str:
    """Where in the file the error is, if it is there."""
    if isinstance(error, SyntaxError):
        return ""
    where, _ = _parts(reference)
    names = {Path(where).name, where.rpartition(".")[2] + ".py"}
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name in names]
    return f" (line {lines[-1]})" if lines else ""


def _trust_file() -> Path:
    if named := os.environ.get(TRUST):
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "rl-interp" / "trusted"


def _lines() -> list[str]:
    """Of the file of trusted hashes: a sha256 each, and after two spaces the path if it is known."""
    try:
        return _trust_file().read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{_trust_file()}, the list of code that you trust, can't be read ({error}); remove it, or set {TRUST} to "
            "another file."
        ) from error


def _trusted() -> set[str]:
    return {line[:64] for line in _lines()}
