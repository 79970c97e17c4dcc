"""The choice of single heads: exact figures by brute force, and a policy that serves a task that it never saw."""

from itertools import combinations

import pytest
import torch

from rl_interp.circuits.discovery.rl.heads import HeadTask, learn
from rl_interp.circuits.discovery.rl.training import RLConfig


def task(name, seed, heads=9):
    """The more of the second feature a head has, the better."""
    features = torch.rand(heads, 3, generator=torch.Generator().manual_seed(seed))
    return HeadTask(name, features, features[:, 1].double() - 0.2)


def test_the_best_of_some_tries_is_that_of_all_choices_of_as_many():
    one = task("one", 0)
    for tries in (1, 3, 9):
        best = [max(each) for each in combinations(one.rewards.tolist(), tries)]
        assert one.share_of_tries(tries) == pytest.approx(sum(best) / len(best) / one.oracle)
    assert one.share_of_tries(9) == one.share(int(one.rewards.argmax())) == 1


@pytest.mark.full
def test_what_makes_a_head_matter_is_learned_and_serves_another_task():
    learned = learn([task("a", 1), task("b", 2)], RLConfig(updates=25), seed=0)
    other = task("c", 3)
    assert other.share(learned.choice(other)) > 0.9 > other.share_of_tries(1)
    assert learned.cut <= 18
