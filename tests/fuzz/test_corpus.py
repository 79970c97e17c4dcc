"""The alterations that `make fuzz` found worth keeping: each was refused in a sentence of its own, or once was not."""

import json

import pytest
from fuzz import CORPUS, Place

RECIPES = json.loads(CORPUS.read_text())


@pytest.mark.parametrize("target", sorted({target for target, _, _ in RECIPES}))
def test_an_altered_file_is_used_or_refused_in_a_sentence(target, tmp_path):
    place = Place(target, tmp_path)
    for _, mutation, seed in (recipe for recipe in RECIPES if recipe[0] == target):
        outcome, said = place.judge(mutation, seed)
        assert outcome in ("used", "refused"), f"{mutation} {seed}: {said}"
