"""Imports run one way: core <- agents, sae, saliency <- analysis <- app."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
METHODS = ("rl_interp.agents", "rl_interp.sae", "rl_interp.saliency")
ALLOWED = {
    "rl_interp.core": set(),
    "rl_interp.agents": {"rl_interp.core"},
    "rl_interp.sae": {"rl_interp.core"},
    "rl_interp.saliency": {"rl_interp.core"},
    "rl_interp.analysis": {"rl_interp.core", *METHODS},
    "rl_interp.app": {"rl_interp.core", *METHODS, "rl_interp.analysis"},
}


def package_of(module: str) -> str | None:
    return next((p for p in ALLOWED if module == p or module.startswith(p + ".")), None)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
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


def test_importing_the_suite_loads_no_heavy_or_optional_package():
    heavy = {
        "rl_interp.agents.dqn", "ale_py", "captum", "crafter", "cv2", "matplotlib", "numba", "pyarrow", "ray", "rich",
        "scipy", "sklearn", "starlette", "tensorboard", "tyro",
    }  # fmt: skip
    code = f"import torch, sys; before = set(sys.modules); import rl_interp; print({heavy} & set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
