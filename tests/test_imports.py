"""Imports run one way: core <- agents, sae, saliency, circuits <- analysis <- app."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Collection
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
METHODS = ("rl_interp.agents", "rl_interp.sae", "rl_interp.saliency", "rl_interp.circuits")
ALLOWED = {
    "rl_interp.core": set(),
    "rl_interp.agents": {"rl_interp.core"},
    "rl_interp.sae": {"rl_interp.core"},
    "rl_interp.saliency": {"rl_interp.core"},
    "rl_interp.circuits": {"rl_interp.core"},
    "rl_interp.analysis": {"rl_interp.core", *METHODS},
    "rl_interp.app": {"rl_interp.core", *METHODS, "rl_interp.analysis"},
}


def package_of(module: str) -> str | None:
    return next((p for p in ALLOWED if module == p or module.startswith(p + ".")), None)


IMPORT = (ast.Import, ast.ImportFrom)


def imports(path: Path) -> set[str]:
    return names(ast.parse(path.read_text()), path)


def names(tree: ast.AST, path: Path | None = None) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction; write the whole name"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_lies_below_it(package):
    files = list((ROOT / package.replace(".", "/")).rglob("*.py"))
    assert files
    for file in files:
        used = {package_of(name) for name in imports(file)} - {None, package}
        assert used <= ALLOWED[package], f"{file} imports {used - ALLOWED[package]}"


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(path: Path, known: Collection[str]) -> set[str]:
    """The known modules that a file names: in `from a import b`, `a.b` if that is one, else `a`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else str(node.module) for name in names}
    return found & set(known)


def test_no_module_imports_one_that_imports_it():
    """Neither at the top of a file, nor in a function, nor for types alone."""
    folders = [ROOT / package.replace(".", "/") for package in ALLOWED]  # each: `rglob` follows no links on its way
    everything = [*(ROOT / "rl_interp").glob("*.py"), *chain.from_iterable(folder.rglob("*.py") for folder in folders)]
    files = {module_of(file): file for file in everything}
    graph = {name: sorted(modules(file, files.keys())) for name, file in files.items()}
    assert len(graph) > 150
    assert sum(map(len, graph.values())) > 500
    found = circle(graph)
    assert not found, " imports ".join(found)


def circle(graph: dict[str, list[str]]) -> list[str]:
    """Modules each of which imports the next, and the last the first; empty if there are none."""
    finished: set[str] = set()

    def follow(way: list[str]) -> list[str]:
        for name in graph[way[-1]]:
            if name in way:
                return [*way[way.index(name) :], name]
            if name not in finished and (found := follow([*way, name])):
                return found
        finished.add(way[-1])
        return []

    return next((found for name in graph if name not in finished and (found := follow([name]))), [])


def test_a_circle_is_found():
    assert circle({"a": ["b"], "b": ["c", "d"], "c": [], "d": ["b"]}) == ["b", "d", "b"]
    assert circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_importing_the_suite_loads_no_heavy_or_optional_package(program):
    heavy = {
        "rl_interp.agents.dqn", "ale_py", "captum", "crafter", "cv2", "gymnasium", "matplotlib", "numba", "pyarrow",
        "ray", "rich", "safetensors", "scipy", "sklearn", "starlette", "tensorboard", "tyro", "yaml",
    }  # fmt: skip
    code = f"import torch, sys; before = set(sys.modules); import rl_interp; print({heavy} & set(sys.modules) - before)"
    assert program(code).stdout.strip() == "set()"


def test_packages_that_take_long_to_import_are_imported_where_they_are_used():
    """All commands would wait for them: with them the explorer took two seconds longer to start."""
    slow = ("sklearn", "scipy.stats", "scipy.optimize", "matplotlib", "pandas", "umap", "zennit")
    for package in ALLOWED:
        for file in (ROOT / package.replace(".", "/")).rglob("*.py"):
            top = ast.Module([each for each in ast.parse(file.read_text()).body if isinstance(each, IMPORT)], [])
            found = {name for name in names(top) if name.startswith(slow)}
            assert not found, f"{file} imports {found} at its top"


@pytest.mark.parametrize("left", ["nothing", "text"])
def test_a_copy_that_lost_its_links_says_so_in_a_sentence(tmp_path, left):
    """An archive that was unpacked without links has nothing there, or a small file with the link's text."""
    (tmp_path / "rl_interp").mkdir()
    shutil.copy(ROOT / "rl_interp/__init__.py", tmp_path / "rl_interp")
    for name in ("saliency", "circuits"):
        (tmp_path / name).mkdir()
        (tmp_path / "rl_interp" / name).symlink_to(f"../{name}")
    if left == "text":
        for name in ("agents", "sae"):
            (tmp_path / "rl_interp" / name).write_text(f"../{name}")
    done = subprocess.run([sys.executable, "-c", "import rl_interp"], capture_output=True, text=True, cwd=tmp_path)
    sentence = done.stderr.splitlines()[-1]
    assert "must hold agents -> ../agents, sae -> ../sae; make them with" in sentence
    for name in ("agents", "sae"):
        (tmp_path / name).mkdir()
    subprocess.run(sentence.split("`")[1], shell=True, check=True)
    assert all((tmp_path / "rl_interp" / name).is_dir() for name in ("agents", "sae", "saliency", "circuits"))


def test_rooms_and_public_names_are_there_after_importing_the_suite(program):
    code = "import rl_interp; rl_interp.sae.SAEConfig, rl_interp.core.hooks; print(*dir(rl_interp))"
    done = program(code)
    assert {"load_agent", "evaluate", "agents", "sae", "saliency", "circuits"} <= set(done.stdout.split())


def test_mazes_are_registered_though_somebody_asked_whether_gymnasium_is_there(program):
    code = "import rl_interp, importlib.util; importlib.util.find_spec('gymnasium'); import gymnasium"
    code += "; gymnasium.make('rl_interp/Maze-v0')"
    assert program(code).returncode == 0
