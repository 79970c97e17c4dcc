"""A small agent, trained through the command line once, that the commands are tried on."""

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest

from rl_interp.app import cli
from rl_interp.app.glossary import explained
from rl_interp.app.next import next_command


def _places(table, words=()):
    for word, entry in table.items():
        yield from [" ".join((*words, word))] if isinstance(entry, str) else _places(entry, (*words, word))


COMMANDS = [words for group in cli.COMMANDS.values() for words in _places(group)]


@pytest.fixture(scope="session")
def home(tmp_path_factory, session_mp):
    """A directory with `runs/tiny` (an agent, its activations) and `runs/tiny-sae`: made by whichever process of the
    tests is the first to need it, of which every process has a copy of its own."""
    # A fit plays 3,600 steps to measure the policy; of agents that hardly learned, a tenth of them says as much.
    session_mp.setattr("rl_interp.analysis.sae.policy.STATES", 48)
    base = tmp_path_factory.getbasetemp()
    given = os.environ.get("RL_INTERP_TESTS_HOME")  # of tests/mutants/run.py, which needs it many times
    shared = Path(given) if given else (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "home"
    with open(shared.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            making = tmp_path_factory.mktemp("making")
            session_mp.chdir(making)
            make_home()
            shutil.move(making, shared)
    own = shutil.copytree(shared, tmp_path_factory.mktemp("home") / "own")
    session_mp.chdir(own)
    return own


def make_home():
    """Make the runs in the working directory."""
    for command in (
        "train dqn --name tiny --agent-steps 600 --num-envs 4 --env-threads 1 --batch-size 8 --learning-starts 200 "
        "--replay-capacity 2000 --eval-episodes 1 --log-every 100 --env.max-frames 1200",
        "collect tiny --samples 2400",
        "sae fit tiny --latents 64 --k 4 --epochs 2 --batch-size 128 --episodes 0 --name tiny-sae",
    ):
        assert cli.main([*command.split(), "--json"]) == 0


@pytest.fixture(scope="session")
def session_mp():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(autouse=True)
def _at_home(home, monkeypatch):
    monkeypatch.chdir(home)


@pytest.fixture
def place(home, tmp_path, monkeypatch):
    """A copy of `home` that a test may spoil, as the working directory."""
    shutil.copytree(home / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def require_words_for(command: str, result: dict):
    """Whatever command is tried, `--explain` knows each term of its result, and there is one to go on with."""
    words = max((each for each in COMMANDS if f"{command} ".startswith(f"{each} ")), key=len)
    assert [term for term, line in explained(result) if line is None] == [], "not in app/terms.py"
    assert next_command(words, result), "not in app/next.py, or without what the line there names"


@pytest.fixture
def run(home, capsys):
    """`run("evaluate tiny ...") -> (status, JSON result or None, stderr)`."""

    def call(command: str):
        capsys.readouterr()
        try:
            status = cli.main([*command.split(), "--json"])
        except SystemExit as exit:  # the argument parser's own errors
            status = exit.code
        out, err = capsys.readouterr()
        result = json.loads(out.splitlines()[-1]) if status == 0 else None
        if result is not None:
            require_words_for(command, result)
        return status, result, " ".join(err.split())

    return call
