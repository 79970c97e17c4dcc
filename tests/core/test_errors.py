"""What an unknown name is answered with."""

import pytest

from rl_interp.core.errors import unknown

IDS = ["ALE/Pong-v5", "ALE/MsPacman-v5", "MiniGrid-Unlock-v0", "MiniGrid-UnlockPickup-v0", "CartPole-v1"]


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("MiniGrid-Unlok-v0", "'MiniGrid-Unlock-v0'"),
        ("ale/mspacman-v5", "'ALE/MsPacman-v5'"),
        ("pong", "'ALE/Pong-v5'"),
        ("Cartpole", "'CartPole-v1'"),
    ],
)
def test_the_nearest_names_come_first_whatever_their_case(given, near):
    assert unknown("environment", given, IDS).startswith(f"unknown environment {given!r}. Did you mean {near}")


def test_names_that_are_all_far_are_listed_alone():
    assert unknown("thing", "xyz", ["a", "b"]) == "unknown thing 'xyz'; known: a, b."
    assert unknown("thing", "", []) == "unknown thing ''; known: none."


def test_a_long_list_is_cut_after_the_nearest():
    said = unknown("thing", "n99", [f"n{i}" for i in range(100)])
    assert "Did you mean 'n99'" in said
    assert said.endswith("n29 and 70 more.")
