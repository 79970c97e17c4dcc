"""The command line: its table, its lists of commands, and flags by their old names."""

import re
import subprocess
import sys

import pytest

from rl_interp.app import cli


def places(table, words=()):
    """`(words, module:function)` of every command below."""
    for word, entry in table.items():
        yield from [((*words, word), entry)] if isinstance(entry, str) else places(entry, (*words, word))


COMMANDS = {" ".join(words): place for group in cli.COMMANDS.values() for words, place in places(group)}
RENAMED = [
    (command, old, new)
    for words, flags in cli.RENAMED.items()
    for old, new in flags.items()
    for command in COMMANDS
    if f"{command} ".startswith(f"{words} ")
]


@pytest.fixture
def call(capsys, monkeypatch):
    """`call("sae fit --help") -> (status, stdout, stderr)`."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(line: str):
        try:
            status = cli.main(line.split())
        except SystemExit as exit:
            status = exit.code
        return status, *capsys.readouterr()

    return run


def flags(helped: str) -> set[str]:
    """Those that a command's help lists."""
    return {each for pair in re.findall(r"^\W*(--[\w.-]+)(?:, (--[\w.-]+))?", helped, re.M) for each in pair if each}


def test_the_list_of_commands_imports_none_of_them():
    code = "import sys; from rl_interp.app import cli\ntry: cli.main(['--help'])\n"
    code += "except SystemExit: print({'torch', 'gymnasium', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_a_command_imports_no_other_commands_module():
    code = "import sys; from rl_interp.app import cli; cli.main(['evaluate', 'no such run'])\n"
    code += (
        "print([m for m in sys.modules if m.startswith(('rl_interp.app.commands.', 'rl_interp.sae', 'scipy.stats'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["rl_interp.app.commands.flags", "rl_interp.app.commands.evaluate"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_its_flags(call, command):
    status, out, _ = call(f"{command} --help")
    assert status == 0
    assert out.startswith(f"usage: rl-interp {command} ")
    assert not re.search(r"(--[\w.-]+ \S+|  )\s+Of ", out)
    assert not re.search(r"--[\w.-]+ \w+\s+\(default", out), "a flag without a text"
    assert 20 < len(cli._about(COMMANDS[command])) <= 110, "one line in the list of commands"


def test_a_group_lists_its_own_commands(call):
    status, out, _ = call("sae --help")
    assert status == 0
    assert re.findall(r"^  (\w+) ", out, re.M) == list(cli.COMMANDS["Layers"]["sae"])
    status, out, err = call("sae")
    assert (status, out) == (2, "")
    assert "usage: rl-interp sae " in err


def test_the_whole_list_has_every_first_word(call):
    status, out, _ = call("--help")
    assert status == 0
    assert re.findall(r"^  (\w+) ", out, re.M) == [word for group in cli.COMMANDS.values() for word in group]


@pytest.mark.parametrize(("line", "near"), [("evalute x", "'evaluate'"), ("sae fitt x", "'sae fit'")])
def test_a_command_that_is_not_there_is_named_beside_the_nearest(call, line, near):
    status, _, err = call(line)
    assert status == 2
    assert f"Did you mean {near}?" in " ".join(err.split())


@pytest.mark.parametrize("line", ["--json info", "info --json"])
def test_json_may_stand_anywhere(call, line):
    status, out, _ = call(line)
    assert status == 0
    assert out.startswith('{"versions": ')


@pytest.mark.parametrize("line", ["--debug evaluate nothing-there", "evaluate nothing-there --debug"])
def test_a_traceback_is_shown_when_asked_for(call, line):
    assert "Traceback" in call(line)[2]
    assert "Traceback" not in call("evaluate nothing-there")[2]


@pytest.mark.parametrize(("command", "old", "new"), RENAMED)
def test_a_flag_by_its_old_name_is_taken_with_a_notice(call, command, old, new):
    known = flags(call(f"{command} --help")[1])
    assert new in known
    assert old not in known
    for spelled in (old, f"{old}=x", old.replace("-", "_").replace("__", "--", 1)):
        status, _, err = call(f"{command} --help {spelled}")
        assert status == 0
        assert f"is called {new} now; the next version will not know the old name." in err


def test_the_value_of_an_old_flag_goes_with_the_new_one(capsys):
    given = ["--as", "a", "--revive=x", "--no_revive", "--k", "4"]
    assert cli._with_new_names("sae fit", given) == ["--name", "a", "--resample=x", "--no-resample", "--k", "4"]
    assert cli._with_new_names("demo", ["--run", "a"]) == ["--run", "a"], "which has always been the agent's"
    assert len(capsys.readouterr().err.strip().splitlines()) == 3


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("train impala", "--num-envs INT .*?default: 32"),
        ("train impala --env rl_interp/Maze-v0", r"--num-envs INT .*?default:\s+64"),
        ("train impala --cbet", "--cbet.coefficient"),
        ("train impala --cbet.coefficient 0.1", "default: 0.005"),
        ("train dreamerv3 --size=small", "--batch-size INT .*?default: 16"),
        ("train dqn --env ALE/Breakout-v5", "default: ALE/Breakout-v5"),
    ],
)
def test_defaults_of_a_training_follow_the_environment_the_size_and_the_bonus(call, line, shown):
    status, out, err = call(f"{line} --help")
    assert status == 0, err
    assert re.search(shown, out, re.S)
    assert ("--cbet.form" in flags(out)) == ("--cbet" in line)
