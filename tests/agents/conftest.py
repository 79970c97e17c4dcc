"""What the tests of IMPALA share."""

import pytest
import torch

from rl_interp.core.progress import Progress


@pytest.fixture
def heard():
    """Progress that keeps its `warnings`."""

    class Heard(Progress):
        def __init__(self):
            self.warnings = []

        def warn(self, sentence):
            self.warnings.append(sentence)

    return Heard()


@pytest.fixture
def taken_log_probs():
    """`taken_log_probs(agent, unroll)`: the log-probabilities `[T, N]` of an unroll's actions, by the network unrolled
    from the states that the actor wrote."""

    def of(agent, unroll):
        state = tuple(torch.from_numpy(unroll[f"state{i}"]) for i in range(2))
        out = agent.unroll(torch.from_numpy(unroll["obs"]), state, torch.from_numpy(unroll["first"]))
        actions = torch.from_numpy(unroll["actions"])[..., None]
        return out.logits[:-1].log_softmax(-1).gather(-1, actions)[..., 0].detach().numpy()

    return of
