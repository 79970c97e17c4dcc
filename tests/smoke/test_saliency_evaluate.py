"""`rl-interp saliency evaluate`: the table, the JSON and the sentence."""

import pytest


@pytest.mark.full
def test_methods_are_tested_beside_controls(run, place):
    status, result, error = run("saliency evaluate tiny --methods gradient entities --episodes 2 --states 2")
    assert status == 0, error
    assert list(result["methods"]) == ["gradient", "entities"]
    assert list(result["controls"]) == ["edges", "frame difference", "centre blob", "random"]
    for row in result["methods"].values():
        assert list(row["deletion"]) == list(row["insertion"]) == ["black", "blur", "another state"]
        assert row["randomisation"]["shares"][-1] == 1
    assert result["methods"]["entities"]["counterfactual"]["action"]["value"] in (0, 0.25, 0.5, 0.75, 1)
    assert result["beats_all_controls"] == [], "two episodes give no interval"
    assert result["best"] is None
    assert result["sentence"].startswith("On tiny, no method")
    status, _, error = run("saliency evaluate tiny --methods lime")
    assert (status, "unknown saliency method 'lime'" in error) == (1, True)
