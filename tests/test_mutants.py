"""The faults that `make mutants` makes on purpose can still be made."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MUTANTS = tomllib.loads((ROOT / "tests/mutants/mutants.toml").read_text())["mutant"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant["fault"] for mutant in MUTANTS])
def test_the_line_that_a_fault_alters_is_there_once(mutant):
    assert (ROOT / mutant["path"]).read_text().count(mutant["text"]) == 1
    assert all((ROOT / test.partition("::")[0]).exists() for test in mutant["tests"].split())
