import pytest
import torch

from rl_interp.core.errors import HookError, UserError
from rl_interp.core.hooks import run_with_cache, run_with_hooks
from rl_interp.core.interventions import (
    Add,
    Clamp,
    During,
    Mean,
    Patch,
    Resample,
    Splice,
    Transcode,
    Zero,
    as_hooks,
    parse_clamp,
)


def after(agent, obs, *interventions):
    at = interventions[0].at
    return run_with_cache(agent, obs, names=[at], hooks=as_hooks(interventions))[1][at]


@pytest.fixture
def plain(conv_agent, conv_obs):
    return run_with_cache(conv_agent, conv_obs, names=["conv.post", "q.in"])[1]


def test_zero_clamp_and_mean_touch_only_their_units(conv_agent, conv_obs, plain):
    value = plain["conv.post"]
    changed = after(conv_agent, conv_obs, Zero("conv.post", units=[0]), Clamp("conv.post", units=[2], value=5.0))
    assert (changed[:, 0] == 0).all()
    assert (changed[:, 2] == 5).all()
    assert torch.equal(changed[:, 1], value[:, 1])
    mean = value.mean((0, 2, 3))
    changed = after(conv_agent, conv_obs, Mean("conv.post", mean=mean, units=[1]))
    torch.testing.assert_close(changed[:, 1], mean[1].expand(5, 6, 6))
    assert torch.equal(changed[:, [0, 2]], value[:, [0, 2]])
    assert torch.equal(after(conv_agent, conv_obs, Mean("conv.post", mean=mean, units=[])), value)


def test_a_clamp_is_read_from_its_point_unit_and_value():
    assert parse_clamp("block1.res1.sum:12=-0.5") == Clamp("block1.res1.sum", units=[12], value=-0.5)
    for text in ("fc.post=2", "fc.post:x=2", "fc.post:1", "fc.post:1=two"):
        with pytest.raises(UserError, match=f"clamp '{text}' given; it has the form HOOK:UNIT=VALUE"):
            parse_clamp(text)


def test_mean_with_positions_keeps_them(conv_agent, conv_obs, plain):
    mean = plain["conv.post"].mean(0)
    torch.testing.assert_close(after(conv_agent, conv_obs, Mean("conv.post", mean=mean)), mean.expand(5, 3, 6, 6))


def test_add_moves_along_the_feature_axis_at_every_position(conv_agent, conv_obs, plain):
    direction = torch.tensor([1.0, 0.0, -2.0])
    moved = after(conv_agent, conv_obs, Add("conv.post", direction=direction, scale=3.0))
    torch.testing.assert_close(moved - plain["conv.post"], 3 * direction[None, :, None, None].expand(5, 3, 6, 6))


def test_add_takes_a_whole_layer_s_direction_for_all_or_for_each(conv_agent, conv_obs, plain):
    each = torch.randn(5, 3, 6, 6)
    moved = after(conv_agent, conv_obs, Add("conv.post", direction=each, scale=-2.0))
    torch.testing.assert_close(moved, plain["conv.post"] - 2 * each)
    moved = after(conv_agent, conv_obs, Add("conv.post", direction=each[0]))
    torch.testing.assert_close(moved, plain["conv.post"] + each[0])


def test_patch_copies_from_another_run(conv_agent, conv_obs):
    _, other = run_with_cache(conv_agent, conv_obs.flip(0), names=["q.in"])
    out, _ = run_with_cache(conv_agent, conv_obs, names=["q"], hooks=as_hooks([Patch("q.in", source=other["q.in"])]))
    torch.testing.assert_close(out.q_values, conv_agent.step(conv_obs.flip(0)).q_values)


def test_what_a_later_hook_writes_in_place_does_not_reach_what_was_patched_in(conv_agent, conv_obs):
    source, mean = torch.ones(5, 108), torch.ones(108)
    for first in (Patch("q.in", source=source), Mean("q.in", mean=mean)):
        hooks = {"q.in": [first, lambda value, site: value.mul_(2)]}
        _, cache = run_with_cache(conv_agent, conv_obs, names=["q.in"], hooks=hooks)
        assert (cache["q.in"] == 2).all()
    assert (source == 1).all()
    assert (mean == 1).all()


def test_resample_draws_whole_samples_of_the_bank_and_is_seeded(conv_agent, conv_obs):
    bank = torch.arange(7.0)[:, None].expand(7, 108)
    drawn = [
        after(conv_agent, conv_obs, Resample("q.in", bank=bank, generator=torch.Generator().manual_seed(3)))
        for _ in range(2)
    ]
    assert torch.equal(*drawn)
    assert (drawn[0] == drawn[0][:, :1]).all()
    assert len(drawn[0][:, 0].unique()) > 1


def test_splice_passes_features_through_a_function_at_each_position(conv_agent, conv_obs, plain):
    seen = []

    def double(x):
        seen.append(x.shape)
        return 2 * x

    spliced = after(conv_agent, conv_obs, Splice("conv.post", reconstruct=double))
    assert seen == [(5 * 36, 3)]
    torch.testing.assert_close(spliced, 2 * plain["conv.post"])


def test_a_transcoder_predicts_a_position_from_the_same_and_a_vector_from_the_whole_layer(
    conv_agent, conv_obs, plain, recurrent_agent
):
    def outcome(*interventions):
        return run_with_hooks(conv_agent, conv_obs, hooks=as_hooks(interventions)).q_values

    by_position = Transcode("conv.post", source="conv.pre", predict=lambda x: x.relu() + torch.tensor([0.0, 1.0, 2.0]))
    moved = (plain["conv.post"] + torch.arange(3.0)[:, None, None]).flatten(1)
    torch.testing.assert_close(outcome(by_position), conv_agent.q(moved))
    whole = Transcode("q.in", source="conv.post", predict=lambda x: 3 * x + 1)
    torch.testing.assert_close(outcome(whole), conv_agent.q(3 * plain["q.in"] + 1))
    torch.testing.assert_close(outcome(by_position, whole), conv_agent.q(3 * moved + 1))
    torch.testing.assert_close(outcome(Zero("conv.post"), whole), conv_agent.q(torch.ones(5, 108)))
    assert torch.equal(outcome(During(whole, phase="imagine")), conv_agent.step(conv_obs).q_values)
    assert whole.name == "transcoder(conv.post -> q.in)"
    of_each_step = Transcode("pi", source="gru", predict=lambda hidden: hidden[:, :3])
    obs, hooks = torch.randn(4, 2, 5), as_hooks([of_each_step])
    out, cache = run_with_cache(recurrent_agent, obs, names=["gru"], hooks=hooks, unroll=True)
    assert torch.equal(out.logits, cache["gru"][..., :3])


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (Zero("conv.post", units=[3]), "units 0 to 2"),
        (Add("conv.post", direction=torch.ones(4)), "has 3 features"),
        (Patch("conv.post", source=torch.zeros(1, 3, 6, 6)), "same shape"),
        (Resample("conv.post", bank=torch.zeros(9, 3), generator=torch.Generator()), "same hook point"),
        (Transcode("conv.post", source="q.in", predict=lambda x: x), "'q.in' must have a new value each time before"),
        (
            Transcode("q.in", source="conv.post", predict=lambda x: x[:, :7]),
            r"\(5, 7\) was given for 'q.in', which has",
        ),
    ],
)
def test_misfits_are_refused_in_one_sentence(conv_agent, conv_obs, intervention, message):
    with pytest.raises(HookError, match=message):
        after(conv_agent, conv_obs, intervention)


def test_config_describes_without_the_data():
    assert Add("fc.post", direction=torch.ones(4), scale=2.0).config() == {
        "kind": "add",
        "at": "fc.post",
        "direction": "tensor(4,)",
        "scale": 2.0,
    }
