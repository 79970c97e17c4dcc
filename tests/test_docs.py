"""The documentation says what is so: its links lead somewhere, its Python runs, its tutorial has been run."""

import inspect
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import get_type_hints

import matplotlib
import pytest
from selection import in_full

from rl_interp.app import cli

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "runs" / "README.md"])
TUTORIAL = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in TUTORIAL["cells"] if cell["cell_type"] == "code"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *in_full(*sorted((ROOT / "docs" / "how-to").glob("*.md")))], ids=lambda p: p.stem
)
def test_the_python_on_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="which runs come with the code is asked of git")
def test_runs_that_come_with_the_code_come_with_the_package():
    """Wheels leave out what .gitignore names, also where it is in git."""
    names = subprocess.run(["git", "ls-files", "runs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ignored = ["git", "check-ignore", "--no-index", "--stdin"]
    assert not subprocess.run(ignored, cwd=ROOT, input=names, capture_output=True, text=True).stdout
    told = (ROOT / "runs" / "README.md").read_text(encoding="utf-8").partition("reference runs")[2]
    listed = re.findall(r"`([a-z0-9-]+)`[,;. ]", told)
    assert {name.split("/")[1] for name in names.splitlines()} == {"README.md", *listed}


def test_the_home_page_shows_the_ten_lines_of_the_readme():
    assert blocks(ROOT / "docs" / "index.md", "python") == blocks(ROOT / "README.md", "python")[:1]


def commands() -> list[str]:
    pages = [ROOT / "README.md", ROOT / "docs" / "commands.md", ROOT / "docs" / "index.md"]
    lines = [line for page in pages for block in blocks(page, "") for line in block.splitlines()]
    told = "".join(text for cell in TUTORIAL["cells"] for text in cell["source"] if cell["cell_type"] == "markdown")
    lines += told.splitlines()
    return [line.partition(" # ")[0].strip() for line in lines if line.startswith("rl-interp ")]


@pytest.mark.parametrize("command", commands())
def test_every_command_shown_exists_and_takes_its_flags(command, monkeypatch, capsys):
    """Parsed as the command line does it, with what the command would do left out."""
    called = []
    load = cli.load

    def parsed_only(place):
        function = load(place)

        def record(*args, **flags):
            called.append(place)
            return {}

        record.__dict__.update(function.__dict__)
        record.__signature__ = inspect.signature(function)
        record.__annotations__ = get_type_hints(function, include_extras=True)
        record.__doc__ = function.__doc__
        return record

    monkeypatch.setattr(cli, "load", parsed_only)
    assert cli.main(shlex.split(command)[1:]) == 0, capsys.readouterr().err
    assert "notice" not in capsys.readouterr().err
    assert called


def test_the_tutorial_is_committed_as_it_ran():
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    variables = {}
    for number, cell in enumerate(CODE, 1):
        exec(compile("".join(cell["source"]), f"docs/tutorial.ipynb, cell {number}", "exec"), variables)
    assert variables["metrics"].fvu < 0.2
    assert variables["best"].effect > variables["best"].control
