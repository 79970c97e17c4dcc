"""The command line: its table, its lists of commands, and flags by their old names."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numba
import pytest

from rl_interp.app import cli
from rl_interp.app.commands import train
from rl_interp.app.commands.info import EXTRAS
from rl_interp.app.glossary import explained
from rl_interp.app.next import INSTEAD, NEXT, next_command
from rl_interp.app.progress import show_log
from rl_interp.core.compiled import announce


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
    if f"{command} ".startswith(f"{words} ") and (command == words or words not in COMMANDS)
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


def required(helped: str) -> set[str]:
    """Those without which a command does nothing."""
    _, *described = re.split(r"^\W*(?=--\w)", helped, flags=re.M)
    return {re.findall(r"--[\w.-]+", each)[0] for each in described if "(required)" in each}


def test_the_list_of_commands_imports_none_of_them():
    code = "import sys; from rl_interp.app import cli\ntry: cli.main(['--help'])\n"
    code += "except SystemExit: print({'torch', 'gymnasium', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_a_command_imports_no_other_commands_module(program):
    code = "import sys; from rl_interp.app import cli; cli.main(['evaluate', 'no such run'])\n"
    code += (
        "print([m for m in sys.modules if m.startswith(('rl_interp.app.commands.', 'rl_interp.sae', 'scipy.stats'))])"
    )
    assert program(code).stdout.strip() == str(["rl_interp.app.commands.flags", "rl_interp.app.commands.evaluate"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_its_flags(call, command):
    status, out, _ = call(f"{command} --help")
    assert status == 0
    assert out.startswith(f"usage: rl-interp {command} ")
    assert not re.search(r"(--[\w.-]+ \S+|  )\s+Of ", out)
    assert not re.search(r"--[\w.-]+ \w+\s+\(default", out), "a flag without a text"
    assert 20 < len(cli._about(COMMANDS[command])) <= 110, "one line in the list of commands"


@pytest.mark.parametrize("command", ["evaluate", "demo"])
def test_who_plays_atari_is_told_that_nearby_seeds_share_episodes(call, command):
    told = re.sub(r"[│\s]+", " ", call(f"{command} --help")[1])
    assert "On Atari, environment i has seed + i" in told
    assert "nearby seeds share episodes: for other ones give a seed further away than there are" in told


def test_a_group_lists_its_own_commands(call):
    status, out, _ = call("sae --help")
    assert status == 0
    assert re.findall(r"^  (\w+) ", out, re.M) == list(cli.COMMANDS["Layers"]["sae"])
    assert call("sae") == (0, out, ""), "also where nothing follows"


def test_the_whole_list_has_every_first_word(call):
    status, out, _ = call("--help")
    assert status == 0
    assert re.findall(r"^  (\w+) ", out, re.M) == [word.split()[0] for group in cli.COMMANDS.values() for word in group]


@pytest.mark.parametrize(("line", "near"), [("evalute x", "'evaluate'"), ("sae fitt x", "'sae fit'")])
def test_a_command_that_is_not_there_is_named_beside_the_nearest(call, line, near):
    status, _, err = call(line)
    assert status == 2
    assert f"Did you mean {near}?" in " ".join(err.split())


def test_every_command_has_a_next_one_which_there_is(call):
    for words, line in [*NEXT.items(), *((words, line) for words, (*_, line) in INSTEAD.items())]:
        assert any(f"{command} ".startswith(f"{words} ") for command in (*COMMANDS, "import")), words
        if line.startswith("rl-interp "):
            following = max((each for each in COMMANDS if line.startswith(f"rl-interp {each}")), key=len)
            helped = call(f"{following} --help")[1]
            assert required(helped) <= set(re.findall(r" (--[\w-]+)", line)) <= flags(helped), line
    assert all(command in NEXT or command.partition(" ")[0] in NEXT for command in COMMANDS)


def test_the_next_command_names_what_the_result_is_about():
    assert next_command("sae report", {"run": "features", "continuous": False}) == "rl-interp sae test features"
    assert next_command("sae report", {"run": "features", "continuous": True}) == "rl-interp sae compare features OTHER"
    assert next_command("saliency", {"run": "ant", "observation": "vector"}) == "rl-interp probe ant --hooks HOOK"
    assert next_command("saliency evaluate", {"run": "ant", "best": "rise"}) == "rl-interp saliency ant --method rise"
    assert next_command("saliency evaluate", {"run": "ant", "best": None}) == "rl-interp probe ant --hooks HOOK"
    assert next_command("train beso", {"run": "ways", "objective": "mse"}) == "rl-interp saliency ways"
    assert next_command("train beso", {"run": "ways", "objective": "diffusion"}) == "rl-interp denoise samplers ways"
    assert next_command("collect", {"run": "a b", "hook": "fc.post"}) == "rl-interp sae fit 'a b' --hook fc.post"
    found = {"run": "mouse", "hook": "h", "searches": {"channels": {"found": [7, 3]}}}
    assert next_command("maze steer", found) == "rl-interp maze retarget mouse --hook h --channel 7"
    assert next_command("maze steer", {"run": "mouse"}) is None


@pytest.mark.full
def test_people_see_what_is_next_on_stderr_and_json_nothing_of_it(call):
    status, out, err = call("info")
    assert (status, err.splitlines()[-1]) == (0, "next: rl-interp demo")
    assert "next:" not in out
    assert "next:" not in "".join(call("info --json")[1:])


def test_terms_are_explained_when_asked_for_also_beside_json(call):
    status, out, _ = call("info --explain")
    assert status == 0
    assert re.search(r"^  device +device that `auto` chooses$", out, re.M)
    status, out, err = call("info --json --explain")
    assert list(json.loads(out)) == ["versions", "git", "hardware", "device", "bf16", "fast_paths", "extras", "enables"]
    assert re.search(r"^  device +device that `auto` chooses$", err, re.M)


def test_names_and_settings_are_no_terms():
    result = {"fvu": 0.1, "controls": {"original": 1.0}, "methods": {"a": {"trained": {"way": {"low": 0}}}}}
    result |= {"protocol": {"frame_skip": 4}, "return_recovered_interval": None, "odd": 3, "rows": [{"l0": 2}]}
    found = dict(explained(result))
    terms = ["fvu", "controls", "methods", "trained", "way", "low", "protocol", "return_recovered_interval", "odd"]
    assert list(found) == [*terms, "rows", "l0"]
    assert [term for term, line in found.items() if line is None] == ["odd", "rows"]


def test_info_lists_the_extras_that_there_are():
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]
    assert list(EXTRAS) == list(project["optional-dependencies"])


def test_compiling_is_announced_once(capsys):
    show_log()
    announce.cache_clear()
    first, second = numba.njit(lambda x: x + 1), numba.njit(lambda x: x + 2)
    assert "compiling" not in capsys.readouterr().err
    assert first(1) + second(1) == 5
    assert capsys.readouterr().err.count("compiling loops for this machine") == 1


@pytest.mark.parametrize("flag", ["--env", "--size"])
def test_a_flag_on_which_defaults_depend_needs_its_value(call, flag):
    for line in (f"train dreamerv3 {flag}", f"train dreamerv3 {flag} --seed 3"):
        status, _, err = call(line)
        assert status == 1
        assert f"error: {flag} given without a value; give " in err


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
    assert cli._with_new_names("saliency evaluate", ["--decisions", "9"]) == ["--decisions", "9"], "it never had it"
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


@pytest.mark.parametrize("agent", ["dqn", "impala", "dreamerv3"])
def test_pretraining_resets_counts_at_random(agent):
    config = getattr(train, f"_{agent}_config")
    assert config(["--cbet", "--pretrain"]).cbet.reset_probability == 0.001
    assert config(["--cbet"]).cbet.reset_probability == 0
    assert config([]).cbet is None
