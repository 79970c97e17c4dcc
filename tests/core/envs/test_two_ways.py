"""Two ways round a post: where an episode starts, and what is demonstrated there."""

import numpy as np
import pytest

from rl_interp.core.envs import TwoWaysConfig, make_vector
from rl_interp.core.envs.two_ways.config import POST
from rl_interp.core.envs.two_ways.demonstrate import demonstrate
from rl_interp.core.envs.two_ways.game import TwoWaysGame
from rl_interp.core.errors import UserError

FORK = TwoWaysConfig(start=-0.6, spread=0.0, asked=("end",))
"""A start from which every episode looks the same."""


def test_a_start_without_spread_is_the_same_in_all_episodes():
    obs = make_vector(FORK, 5).reset(seed=3)
    assert (obs == np.array([-0.6, 0.0, 1.0, 0.0], np.float32)).all()
    spread = make_vector(TwoWaysConfig(spread=0.05), 50).reset(seed=3)[:, :2]
    assert np.abs(spread - [-1.0, 0.0]).max() <= 0.05
    assert spread.std(0).min() > 0.02


def test_the_mean_of_what_is_demonstrated_there_leads_to_the_post_and_no_further():
    first = np.array([actions[0] for _, actions in demonstrate(FORK, 300, 0)])
    above = first[:, 1] > 0
    assert 0.4 < above.mean() < 0.6
    assert (np.abs(first[:, 1]) < 0.05).mean() < 0.01  # two modes, with next to nothing between them
    mean = (first[above].mean(0) + first[~above].mean(0)) / 2
    game = TwoWaysGame(FORK)
    game.reset(0)
    for _ in range(FORK.max_steps):
        ended = game.step(mean)
    assert ended == (0.0, False, True)
    assert game.way == 0
    assert np.hypot(*game.at) < POST + np.hypot(*mean)


@pytest.mark.parametrize("settings", [dict(start=-0.4), dict(start=0.9), dict(spread=0.6), dict(start=-2.0)])
def test_a_start_that_is_not_left_of_the_post_is_refused(settings):
    with pytest.raises(UserError, match="all starts must lie left of the post, between -1.5 and -0.45"):
        TwoWaysConfig(**settings)
