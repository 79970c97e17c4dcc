"""The transformer: the contract, its two ways of computing, and its training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rl_interp.agents.load import load_agent
from rl_interp.agents.transformer import Architecture, Training, Transformer, default_config, make_agent, train
from rl_interp.agents.transformer.training import optimizer, text_loss
from rl_interp.core.check_agent import check_agent
from rl_interp.core.envs import make_vector
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import hooked, run_with_cache, run_with_hooks
from rl_interp.core.interventions import Zero
from rl_interp.core.run import Run

IOI = "rl_interp/Text-ioi"
GPT = dict(layers=2, width=16, heads=4, hidden=24)
LLAMA = dict(GPT, kv_heads=2, positions="rotary", norm="rms", mlp="gated", bias=False, tied=True)
SMALL = dict(layers=1, width=16, heads=2, hidden=16, num_envs=8, agent_steps=2_000, log_every=500, warmup=100,
             checkpoint_every=0, eval_episodes=5, precision="fp32")  # fmt: skip


def transformer(**changes) -> Transformer:
    """One of which every weight matters, also biases and norms."""
    torch.manual_seed(0)
    agent = Transformer(Architecture(vocabulary=77, context=20, **{**GPT, **changes})).eval()
    for weight in agent.parameters():
        nn.init.normal_(weight, 0.0 if weight.dim() > 1 else 0.5, 0.3)
    return agent


def prompts(count=5):
    return torch.from_numpy(make_vector(default_config(IOI).env, count).reset(0))


@pytest.mark.parametrize("shape", [GPT, LLAMA, {**GPT, "hidden": 0}], ids=["gpt", "llama", "attention alone"])
def test_it_keeps_the_contract(shape):
    check_agent(transformer(**shape), prompts())


def test_blocks_with_layer_norms_are_those_of_torch():
    agent = transformer()
    theirs = nn.TransformerEncoderLayer(16, 4, 24, 0.0, lambda x: F.gelu(x, approximate="tanh"), norm_first=True,
                                        batch_first=True).eval()  # fmt: skip
    x = torch.randn(3, 7, 16)
    for ours in agent.blocks:
        attention = ours.attention
        read = attention.query, attention.key, attention.value
        given = {
            "self_attn.in_proj_weight": torch.cat([layer.weight for layer in read]),
            "self_attn.in_proj_bias": torch.cat([layer.bias for layer in read]),
            "linear1.weight": ours.mlp.up.weight, "linear1.bias": ours.mlp.up.bias,
            "linear2.weight": ours.mlp.down.weight, "linear2.bias": ours.mlp.down.bias,
        }  # fmt: skip
        for theirs_name, module in (
            ("self_attn.out_proj", attention.output), ("norm1", ours.norm1), ("norm2", ours.norm2),
        ):  # fmt: skip
            given |= {f"{theirs_name}.{name}": weight for name, weight in module.named_parameters()}
        theirs.load_state_dict(given)
        want = theirs(x, src_mask=nn.Transformer.generate_square_subsequent_mask(7), is_causal=True)
        assert torch.allclose(ours(x), want, atol=1e-5)


def test_rotary_attention_sees_how_far_apart_words_are_and_not_where():
    agent = transformer(**{**LLAMA, "layers": 1})
    turns = agent.blocks[0].attention.turns
    q, k = torch.randn(2, 1, 1, 1, 4)
    turned_q, turned_k = (turns(x.expand(1, 1, 20, 4)) for x in (q, k))
    scores = (turned_q @ turned_k.mT)[0, 0]
    for apart in (0, 3, 7):
        assert torch.allclose(scores.diagonal(-apart), scores[apart, 0].expand(20 - apart), atol=1e-5)
    assert not torch.allclose(scores[0, 0], scores[7, 0], atol=1e-3)


def test_decisions_along_a_text_are_those_of_its_beginnings():
    agent, text = transformer(**LLAMA), torch.randint(77, (2, 12))
    along = agent.along(text).logits
    for time in range(12):
        beginning = F.pad(text[:, : time + 1], (0, 19 - time), value=-1)
        assert torch.allclose(along[time], agent.step(beginning).logits, atol=1e-4)


@pytest.mark.parametrize("shape", [GPT, LLAMA], ids=["gpt", "llama"])
def test_terms_add_up_to_the_stream(shape):
    agent, obs = transformer(**shape), prompts()
    names = [name for name in agent.hook_points if name.startswith("terms.")]
    _, cache = run_with_cache(agent, obs, names=names)
    total = sum(cache[name].sum(1) for name in names if name != "terms.last")
    biases = [block.attention.output.bias for block in agent.blocks if block.attention.output.bias is not None]
    assert torch.allclose(total + sum(biases), cache["terms.last"][:, 0], atol=1e-4)
    last = f"block{agent.shape.layers - 1}.sum"
    _, plain = run_with_cache(agent, obs, names=[last, "block1.pattern"])
    assert torch.allclose(plain[last], cache["terms.last"][:, 0], atol=1e-4)
    assert torch.allclose(plain["block1.pattern"].sum(-1), torch.ones(()), atol=1e-5)


def test_a_head_cut_before_the_sum_is_that_head_cut_among_the_terms():
    agent, obs = transformer(**LLAMA), prompts()
    both = [
        run_with_hooks(agent, obs, hooks={name: Zero(name, units=[2])}).logits
        for name in ("block0.z", "terms.block0.heads")
    ]
    assert torch.allclose(*both, atol=1e-4)
    assert not torch.allclose(both[0], agent.step(obs).logits, atol=1e-2)


def test_a_text_that_is_too_long_is_refused():
    with pytest.raises(UserError, match="a text of 21 words given; this transformer reads 20 at most"):
        transformer().step(torch.zeros(1, 21, dtype=torch.int64))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"heads": 3}, "width=16 given with heads=3"), ({"kv_heads": 3}, "heads=4 given with kv_heads=3"),
     ({"width": 12, "positions": "rotary"}, "rotary positions turn pairs")],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        transformer(**wrong)


def test_an_environment_without_words_is_refused():
    with pytest.raises(UserError, match="shows vector; a transformer reads tokens: give --task"):
        default_config("CartPole-v1")


def test_only_matrices_decay():
    config = default_config(IOI, **SMALL)
    decays = {group["weight_decay"]: group["params"] for group in optimizer(transformer(), config).param_groups}
    assert {weight.dim() for weight in decays[0.0]} == {1}
    assert {weight.dim() for weight in decays[0.01]} == {2}


def test_padding_is_not_learned_from():
    agent, text = transformer(), torch.randint(77, (1, 9))
    assert torch.allclose(text_loss(agent, F.pad(text, (0, 4), value=-1)), text_loss(agent, text))


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    config = default_config(IOI, **SMALL)
    train(config, Run.create(tmp_path / "whole", "transformer", config, 1), 1, "cpu")
    half = replace(config, agent_steps=1_000, warmup=100)
    stopped = Training(config, 1, "cpu")
    while stopped.agent_steps < half.agent_steps:
        stopped.advance()
    run = Run.create(tmp_path / "parts", "transformer", config, 1)
    run.save_checkpoint(stopped.agent_steps, stopped.agent.state_dict(), stopped.state())
    train(config, run, 1, "cpu")
    weights = [load_agent(tmp_path / name).agent.state_dict() for name in ("whole", "parts")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert run.metrics()[-1]["loss"] < np.log(77)


@pytest.mark.full
def test_it_learns_that_years_grow():
    changes = dict(width=32, num_envs=64, agent_steps=200_000, eval_episodes=300, learning_rate=1e-2)
    training = Training(default_config("rl_interp/Text-greater-than", **{**SMALL, **changes}), 0, "cpu")
    before = training.score().returns.mean()
    while training.agent_steps < training.config.agent_steps:
        training.advance()
    assert training.score().returns.mean() > 0.8 > before + 0.1


def test_matrices_begin_as_wide_as_asked_and_those_that_write_into_the_stream_narrower():
    torch.manual_seed(0)
    agent = make_agent(default_config(IOI, layers=2, init_std=0.3))
    assert float(agent.blocks[1].attention.query.weight.detach().std()) == pytest.approx(0.3, rel=0.05)
    assert float(agent.blocks[1].mlp.down.weight.detach().std()) == pytest.approx(0.3 / 2, rel=0.05)


@pytest.mark.slow
def test_two_blocks_of_attention_learn_induction_by_their_defaults():
    training = Training(default_config("rl_interp/Text-induction"), 0, "cpu")
    while training.agent_steps < training.config.agent_steps:
        training.advance()
    assert training.score().returns.mean() > 0.9


@pytest.mark.parametrize("scope", ["local", "global"])
def test_the_ablated_stream_keeps_k_units_and_the_model_stays_as_it_is(scope):
    torch.manual_seed(0)
    shape = Architecture(vocabulary=77, context=20, **GPT)
    agent, text = Transformer(shape, 3, scope).eval(), torch.randint(77, (2, 9))
    torch.manual_seed(0)
    plain = Transformer(shape).eval()
    assert torch.equal(agent.along(text).logits, plain.along(text).logits)
    streams = agent.both_streams(text)
    assert torch.equal(streams.clean, agent.stream(text))
    assert all(bool((mask.sum(-1) == 3).all()) for mask in streams.masks.values())
    cut = {f"block{n}.mlp.post": lambda value, site: value * streams.masks[site.name] for n in (0, 1)}
    for n in (0, 1):
        each = streams.masks[f"block{n}.z"].unflatten(-1, (4, 4)).transpose(1, 2)
        cut[f"block{n}.z"] = lambda value, site, each=each: value * each
    with hooked(agent, cut):
        assert torch.allclose(streams.ablated, agent.stream(text), atol=1e-6)
    streams.ablated.square().sum().backward()
    assert all(head.weight.grad.abs().sum() > 0 for head in agent.self_ablation.heads)


def test_units_that_win_do_not_depend_on_later_words():
    torch.manual_seed(0)
    agent = Transformer(Architecture(vocabulary=77, context=20, **GPT), 3, "global").eval()
    text = torch.randint(77, (1, 9))
    other = text.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 77
    one, two = (agent.both_streams(each).ablated for each in (text, other))
    assert torch.allclose(one[:, :6], two[:, :6], atol=1e-6)
    assert not torch.allclose(one[:, 6:], two[:, 6:], atol=1e-3)


def test_more_winners_than_units_are_refused():
    with pytest.raises(UserError, match="self_ablation=16 given with width=16 and hidden=24"):
        default_config(IOI, **GPT, self_ablation=16)
