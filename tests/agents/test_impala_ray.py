"""ActorPool on a real Ray cluster on this machine."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from rl_interp.agents.impala import IMPALAConfig, make_agent
from rl_interp.agents.impala.actor import flat_weights
from rl_interp.agents.impala.training import Training
from rl_interp.core.envs import MiniGridConfig
from rl_interp.core.errors import UserError

ray = pytest.importorskip("ray", reason="the extra `distributed` is not installed")

SMALL = IMPALAConfig(
    env=MiniGridConfig("MiniGrid-Empty-5x5-v0"), agent_steps=40_000, num_envs=16, unroll=20, hidden=64, lstm=64,
    precision="fp32",
)  # fmt: skip


@pytest.fixture
def actors(heard):
    from rl_interp.agents.impala.ray_actor_pool import RayActorPool

    torch.manual_seed(0)
    agent = make_agent(SMALL)
    made = RayActorPool(SMALL, 0, agent, 1, "local", heard)
    made.publish(flat_weights(agent))
    yield made, agent
    made.close()


@pytest.mark.full
def test_remote_actors_play_with_the_weights_given_and_are_replaced_when_they_die(actors, taken_log_probs, heard):
    actors, agent = actors
    _, unroll = actors.next()
    np.testing.assert_allclose(unroll["log_probs"], taken_log_probs(agent, unroll), atol=1e-5)
    os.kill(actors.process_ids()[0], signal.SIGKILL)
    while actors._lives[0] == 0 or actors._finished[0] == 0:
        actors.next()
    assert heard.warnings == ["actor 0 died; a new one takes its place, and its unfinished unroll is lost."]


@pytest.mark.slow
def test_the_learning_curve_is_that_of_a_local_run_within_noise():
    """Three seeds each, early and late: the intervals of mean ± 2 standard errors overlap."""

    def learned(seed, **where):
        training = Training(SMALL, seed, **where)
        try:
            while training.agent_steps < SMALL.agent_steps:
                if training.agent_steps == SMALL.agent_steps // 4:
                    early = training.metrics()["episode_return"]
                if training.agent_steps == SMALL.agent_steps * 3 // 4:
                    training.metrics()
                training.advance()
            return early, training.metrics()["episode_return"]
        finally:
            training.close()

    here = np.array([learned(seed, actors=0) for seed in range(3)])
    there = np.array([learned(seed, actors=1, ray_address="local") for seed in range(3)])
    apart, errors = abs(here.mean(0) - there.mean(0)), (here.std(0, ddof=1) + there.std(0, ddof=1)) / np.sqrt(3)
    assert (apart < 2 * errors + 0.05).all()
    assert here[:, 1].mean() > here[:, 0].mean() + 0.1, "something was learned"


def test_an_address_that_does_not_answer_is_named():
    with pytest.raises(UserError, match="no Ray cluster answers at '127.0.0.1:1'"):
        Training(replace(SMALL, num_envs=2), 0, actors=1, ray_address="127.0.0.1:1")
