"""Imports run one way: core <- analysis, agents, sae, saliency <- app."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "rl_interp.core": set(),
    "rl_interp.analysis": {"rl_interp.core"},
    "agents": {"rl_interp.core"},
    "sae": {"rl_interp.core"},
    "saliency": {"rl_interp.core"},
    "rl_interp.app": {"rl_interp.core", "rl_interp.analysis", "agents", "sae", "saliency"},
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
        "agents.dqn", "ale_py", "captum", "crafter", "cv2", "matplotlib", "numba", "pyarrow", "ray", "rich", "scipy",
        "sklearn", "starlette", "tensorboard", "tyro",
    }  # fmt: skip
    code = f"import torch, sys; before = set(sys.modules); import rl_interp; print({heavy} & set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


def test_a_shadowing_package_is_named_in_one_sentence(tmp_path):
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / "__init__.py").touch()
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import rl_interp"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert "the package 'sae' on this Python's path is" in done.stderr
    assert "another distribution shadows it" in done.stderr
