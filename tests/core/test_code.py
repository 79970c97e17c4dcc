"""Code that a run names: imported if the user trusts its file, and never else."""

import hashlib
import sys

import pytest
import yaml

from rl_interp.core.code import TRUST, Code, call_code, code_of, load_code, trust
from rl_interp.core.config import from_plain, to_plain
from rl_interp.core.errors import RunError, UserError

SOURCE = """
open("was run", "a").write("!")
SIZE = 3

def make(size=SIZE):
    return [0] * size
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working directory, with `my.py` in it, of a user who trusts nothing yet."""
    monkeypatch.setenv(TRUST, str(tmp_path / "config" / "trusted"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    work = tmp_path / "work"
    work.mkdir()
    (work / "my.py").write_text(SOURCE)
    monkeypatch.chdir(work)
    return work


def recorded(reference="my.py:make", source=SOURCE):
    """As it stands in the config of a run that came from elsewhere."""
    return Code(reference, hashlib.sha256(source.encode()).hexdigest())


def was_run(folder):
    return (folder / "was run").exists()


def test_what_a_user_names_is_hashed_without_being_imported_and_can_then_be_loaded(folder):
    code = code_of("my.py:make")
    assert code == recorded()
    assert not was_run(folder)
    assert call_code(code, size=2) == [0, 0]


def test_code_of_a_run_is_not_imported_before_it_is_trusted(folder):
    with pytest.raises(UserError, match=f"code of {folder}/my.py .*add --trust {recorded().sha256}"):
        load_code(recorded())
    assert not was_run(folder)
    trust(recorded().sha256)
    assert load_code(recorded())() == [0, 0, 0]


def test_trust_is_in_a_file_of_the_users_own_and_lasts(folder, tmp_path):
    code_of("my.py:make")
    code_of("my.py:make")
    assert (tmp_path / "config/trusted").read_text() == f"{recorded().sha256}  {folder}/my.py\n"


def test_a_file_that_was_changed_is_not_imported_though_its_old_contents_are_trusted(folder):
    code = code_of("my.py:make")
    (folder / "my.py").write_text(SOURCE + "# and more\n")
    with pytest.raises(UserError, match="my.py has changed since my.py:make was recorded.*restore that version"):
        load_code(code)
    assert not was_run(folder)


def test_a_file_is_found_from_elsewhere_by_the_user_who_named_it(tmp_path, monkeypatch):
    code = code_of("my.py:make")
    monkeypatch.chdir(tmp_path)
    assert load_code(code)() == [0, 0, 0]


def test_a_file_is_imported_once_under_a_name_of_its_own(folder):
    code = code_of("my.py:make")
    function = load_code(code)
    assert load_code(code) is function
    assert (folder / "was run").read_text() == "!"
    assert function.__module__.startswith("_rl_interp_my_")
    assert "my" not in sys.modules


def test_the_modules_beside_a_file_can_be_imported_as_by_a_script(folder):
    (folder / "a_helper_of_this_test.py").write_text("SIZE = 5")
    (folder / "my.py").write_text("from a_helper_of_this_test import SIZE\ndef make(): return SIZE")
    assert call_code(code_of("my.py:make")) == 5
    assert sys.path[0] == str(folder)


def test_a_module_is_found_where_python_finds_it_and_in_the_working_directory(folder):
    package = folder / "a_package_of_this_test"
    package.mkdir()
    (package / "__init__.py").write_text("open('was run', 'w')")
    (package / "inner.py").write_text("def make(): return 7")
    code = code_of("a_package_of_this_test.inner:make")
    assert not was_run(folder)
    assert call_code(code) == 7
    assert load_code(code_of("json.decoder:JSONDecoder")).__name__ == "JSONDecoder"


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("mine.py:make", "there is no file mine.py in .* .did you mean my.py.., which is to have 'make'"),
        ("no_such.module:make", "no source file of a module 'no_such.module'.*no_such/module.py:make"),
        ("json.decoder.inner:make", "no source file of a module"),
        ("sys:exit", "no source file of a module 'sys'"),
        ("my.py", "name a function in a file, such as my.py:make"),
        ("my.py:make()", "name a function in a file"),
        ("my file:make", "name a function in a file"),
    ],
)
def test_a_reference_to_nothing_is_a_sentence(reference, sentence):
    with pytest.raises(UserError, match=sentence):
        code_of(reference)


@pytest.mark.parametrize(
    ("name", "source", "sentence"),
    [
        ("mak", SOURCE, "unknown function of my.py 'mak'. Did you mean 'make'\\? Known: make"),
        ("SIZE", SOURCE, "my.py:SIZE is of type int, which can't be called"),
        ("make", "import no_such_module", "can't be imported: ModuleNotFoundError: No module named.* \\(line 1\\)"),
        ("make", "def make(:", "can't be imported: SyntaxError"),
        ("make", "import sys; sys.exit(2)", "can't be imported: SystemExit: 2"),
    ],
)
def test_what_can_not_be_loaded_is_a_sentence(folder, name, source, sentence):
    (folder / "my.py").write_text(source)
    with pytest.raises(UserError, match=sentence):
        load_code(code_of(f"my.py:{name}"))


def test_what_the_code_raises_is_a_sentence_with_its_line():
    with pytest.raises(UserError, match=r"my.py:make raised an error: TypeError: can't multiply .* \(line 6\)"):
        call_code(code_of("my.py:make"), size="x")


def test_code_is_plain_data_in_a_config_and_altered_data_are_refused():
    plain = yaml.safe_load(yaml.safe_dump(to_plain(recorded())))
    assert from_plain(Code, plain, "config.yaml") == recorded()
    with pytest.raises(RunError, match="config.yaml: '../x' given as the sha256"):
        from_plain(Code, plain | {"sha256": "../x"}, "config.yaml")
    with pytest.raises(RunError, match="config.yaml: .os.system.* given as code"):
        from_plain(Code, plain | {"reference": "os.system('ls'):make"}, "config.yaml")


def test_a_list_of_trusted_code_that_can_not_be_written_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(TRUST, str(tmp_path / "file" / "trusted"))
    with pytest.raises(UserError, match=f"can't be written.*{TRUST}"):
        code_of("my.py:make")
