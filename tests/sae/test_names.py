"""Names that people give to features."""

import json

import pytest

from rl_interp.analysis.sae.names import MAX_NAME, Named, carry_names, name_feature, names_of
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.run import Run


@pytest.fixture
def runs(tmp_path):
    return [Run.create(tmp_path / name, "sae", {}, seed=0) for name in ("one", "two")]


def test_a_name_is_kept_in_the_run_and_taken_away_by_an_empty_one(runs):
    name_feature(runs[0], 12, Named("ghost <left>", "beside walls"))
    name_feature(runs[0], 3, Named("", "seldom"))
    again = Run.open(runs[0].path)
    assert names_of(again) == {12: Named("ghost <left>", "beside walls"), 3: Named("", "seldom")}
    name_feature(again, 12, Named())
    assert names_of(runs[0]) == {3: Named("", "seldom")}


def test_names_are_carried_to_features_that_match_and_have_none(runs):
    for feature, name in ((1, "corner"), (2, "cheese"), (3, "wall")):
        name_feature(runs[0], feature, Named(name))
    name_feature(runs[1], 20, Named("mine"))
    assert carry_names(runs[0], runs[1], [(1, 10), (2, 20), (5, 50)]) == {10: 1}
    assert names_of(runs[1]) == {10: Named("corner"), 20: Named("mine")}


def test_what_can_not_be_a_name_or_be_read_is_said(runs):
    with pytest.raises(UserError, match="at most 80"):
        Named("x" * (MAX_NAME + 1))
    with pytest.raises(UserError, match="a note with .* given, a lone surrogate"):
        Named("ghost", "\ud800")
    (runs[0].path / "names.json").write_text(json.dumps({"1": {"name": 5, "note": ""}}))
    with pytest.raises(RunError, match="feature 1 of"):
        names_of(runs[0])
    (runs[0].path / "names.json").write_text(json.dumps({"1": {"name": "x" * (MAX_NAME + 1), "note": ""}}))
    with pytest.raises(RunError, match=r"feature 1 of .*names\.json: a name of 81 characters given"):
        names_of(runs[0])
