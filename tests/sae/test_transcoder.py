"""Transcoders inside an agent, and the stores that they are fitted on."""

import numpy as np
import pytest
import torch

from rl_interp import run_with_hooks
from rl_interp.analysis.sae.runs import open_pair
from rl_interp.core.errors import HookError, UserError
from rl_interp.core.interventions import as_hooks
from rl_interp.core.store import ActivationStore, StoreWriter
from rl_interp.sae import ClampFeature, JumpReLU, TopK, splice


@torch.no_grad()
def test_a_transcoder_that_is_right_leaves_the_agent_as_it_is(conv_agent, conv_obs):
    """One whose latents are a linear layer's outputs in both signs, so that it predicts them exactly."""
    layer, signs = conv_agent.q, torch.cat([torch.eye(4), -torch.eye(4)])
    exact = JumpReLU(108, 8, d_out=4)
    for parameter, value in zip(
        (exact.W_enc, exact.b_enc, exact.W_dec),
        (layer.weight.T @ signs.T, signs @ layer.bias, signs),
        strict=True,
    ):
        parameter.copy_(value)

    def played(sae: JumpReLU) -> torch.Tensor:
        change = splice(sae, "q", 4, source="conv.post")
        return run_with_hooks(conv_agent, conv_obs, hooks=as_hooks([change])).preferences

    torch.testing.assert_close(played(exact), conv_agent.step(conv_obs).preferences)
    exact.b_dec += torch.arange(4.0)
    torch.testing.assert_close(played(exact), conv_agent.step(conv_obs).preferences + torch.arange(4.0))
    with pytest.raises(UserError, match="a transcoder 4 wide can't be spliced in at 'q.in', which is 108 wide"):
        splice(exact, "q.in", 108, source="conv.post")
    with pytest.raises(UserError, match="source=None given to splice in at 'q'; transcoders have one"):
        splice(exact, "q")


def test_a_dictionary_of_another_width_is_a_sentence(conv_agent, conv_obs):
    narrow, transcoder = TopK(8, 16, 2), TopK(8, 16, 2, d_out=4)
    for change, at, kind, width in (
        (splice(narrow, "q.in"), "q.in", "autoencoder", 108),
        (ClampFeature("conv.post", sae=narrow, feature=0, value=1.0), "conv.post", "autoencoder", 3),
        (splice(transcoder, "q", source="conv.post"), "conv.post", "transcoder", 108),
    ):
        with pytest.raises(HookError, match=f"the {kind} takes 8 features and '{at}' has {width}; give"):
            run_with_hooks(conv_agent, conv_obs, hooks=as_hooks([change]))


def test_stores_are_paired_decision_by_decision(tmp_path):
    rng = np.random.default_rng(0)

    def store(name: str, shape: tuple[int, ...], samples: int = 30, step: int = 600, **changed):
        columns = {name: np.arange(samples) // 10 for name in ("episode", "episode_seed", "action")} | changed
        with StoreWriter(tmp_path / name, name, {"step": step}) as writer:
            writer.append(rng.normal(size=(samples, *shape)).astype(np.float32), columns)
        return tmp_path / name

    conv, later, fc = store("conv", (3, 2, 5)), store("later", (4, 2, 5)), store("fc", (7,))
    source, target = open_pair(conv, fc)
    assert (source.positions, source.width, target.width) == (1, 30, 7)
    by_position = ActivationStore(conv).read(np.arange(80, 90))  # the ninth decision
    np.testing.assert_array_equal(source.read(np.array([8]))[0].reshape(3, 10).T, by_position)
    source, target = open_pair(conv, later)
    assert (source.positions, source.width, target.positions, target.width) == (10, 3, 10, 4)
    different = "are not of the same steps, as a transcoder needs them; collect both"
    for other in (
        store("shorter", (7,), samples=20),
        store("of another checkpoint", (7,), step=700),
        store("with other seeds", (7,), episode_seed=np.arange(30) // 10 + 5),
    ):
        with pytest.raises(UserError, match=different):
            open_pair(conv, other)
    with pytest.raises(UserError, match="'conv' has 10 positions and 'fc' 1; a position is predicted from the same"):
        open_pair(fc, conv)
    with pytest.raises(UserError, match="'fc' given to be predicted from itself; leave out --to"):
        open_pair(fc, fc)
