"""What is installed harms nobody: one package, `rl_interp`, beside a project and a library with names of its folders.

`agents` is a package of openai-agents; `agents` and `sae` are folders that a research project may well have.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
CODE = ("rl_interp", "agents", "sae", "saliency", "circuits", "runs")
FIT = """
import agents, sae
assert agents.MINE and sae.MINE

import numpy as np
import rl_interp
from rl_interp.sae import ArrayActivations, SAEConfig, fit

rows = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)
fitted = fit(ArrayActivations(rows), SAEConfig(latents=16, k=2, epochs=1, batch_size=200))
assert fitted.W_dec.shape == (16, 8)
print(rl_interp.__file__)
"""


def done(*command: object, cwd: Path, **env: str) -> str:
    """What a command prints; it must succeed."""
    there = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd, env=there | env)
    assert ran.returncode == 0, f"{command}: {ran.stdout[-2000:]} {ran.stderr[-4000:]}"
    return ran.stdout


def pip(*arguments: object, cwd: Path) -> None:
    done(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The tracked files as they are here, links included."""
    path = tmp_path_factory.mktemp("checkout")
    for name in tracked():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, path / name, follow_symlinks=False)
    return path


def tracked(*under: str) -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("which files belong to the package is asked of git")
    names = done("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *under, cwd=ROOT).split("\0")
    return [name for name in names if name and os.path.lexists(ROOT / name)]


@pytest.fixture(scope="module")
def built(checkout, tmp_path_factory):
    """`sdist`, `wheel` and `wheel from the sdist`, each built by isolated tools from PyPI."""
    path = tmp_path_factory.mktemp("built")
    pip("install", "--quiet", "--target", path / "tools", "build", cwd=path)
    tools = {"PYTHONPATH": str(path / "tools")}
    done(sys.executable, "-m", "build", "--outdir", path / "a", checkout, cwd=path, **tools)
    done(sys.executable, "-m", "build", "--wheel", "--outdir", path / "b", checkout, cwd=path, **tools)
    (sdist,), (from_sdist,) = (path / "a").glob("*.tar.gz"), (path / "a").glob("*.whl")
    (wheel,) = (path / "b").glob("*.whl")
    return {"sdist": sdist, "wheel": wheel, "wheel from the sdist": from_sdist, "editable": checkout}


@pytest.fixture(scope="module")
def openai_agents(tmp_path_factory):
    path = tmp_path_factory.mktemp("openai")
    pip("install", "--quiet", "--target", path, "openai-agents", cwd=path)
    return path


@pytest.fixture(params=["sdist", "wheel", "wheel from the sdist", "editable"])
def environment(request, built, openai_agents, tmp_path):
    """An environment with openai-agents, and rl-interp installed in the way of the parameter.

    What rl-interp depends on comes from the present environment, by a path that is looked at last.
    """
    home = tmp_path / "environment"
    done(sys.executable, "-m", "venv", "--without-pip", home, cwd=tmp_path)
    (site,) = home.glob("lib/python*/site-packages")
    shutil.copytree(openai_agents, site, dirs_exist_ok=True)
    how = ["--editable"] if request.param == "editable" else []
    pip(
        "--python", home / "bin" / "python", "install", "--quiet", "--no-deps", *how, built[request.param], cwd=tmp_path
    )
    (site / "zz_the_present_environment.pth").write_text(sysconfig.get_path("purelib"))
    return home


def test_it_works_beside_a_project_and_a_library_with_folders_of_its_names(environment, built, tmp_path):
    project = tmp_path / "project"
    for name in ("agents", "sae"):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text("MINE = True")
    (project / "main.py").write_text(FIT)
    python = environment / "bin" / "python"

    ours = Path(done(python, "main.py", cwd=project).strip())
    assert ours.is_relative_to(environment) or ours.is_relative_to(built["editable"])
    assert "sae" in done(environment / "bin" / "rl-interp", "--help", cwd=project)
    theirs = done(python, "-c", "import rl_interp, agents; print(agents.Runner, agents.__file__)", cwd=tmp_path)
    assert str(environment) in theirs
    reference = done(python, "-c", "import rl_interp; print(rl_interp.load_agent('impala-unlock').step)", cwd=project)
    assert int(reference) == 3_000_320


@pytest.mark.parametrize("name", ["wheel", "wheel from the sdist"])
def test_a_wheel_has_each_tracked_file_of_the_package_once_and_nothing_else(name, built):
    names = Counter(n for n in zipfile.ZipFile(built[name]).namelist() if ".dist-info/" not in n)
    assert max(names.values()) == 1
    assert set(names) == {n if n.startswith("rl_interp/") else f"rl_interp/{n}" for n in files()}
    assert {Path(n).suffix for n in names} >= {".py", ".html", ".js", ".css", ".safetensors"}


def test_an_sdist_has_each_tracked_file_of_the_package_once_in_its_own_folder(built):
    with tarfile.open(built["sdist"]) as archive:
        names = Counter(member.name.partition("/")[2] for member in archive.getmembers())
    assert max(names.values()) == 1
    assert {n for n in names if n.partition("/")[0] in CODE} == set(files())


def files() -> list[str]:
    """The files of the package by their names in the repository, where links are not files."""
    return [name for name in tracked(*CODE) if not (ROOT / name).is_symlink()]
