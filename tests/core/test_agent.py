import pytest
import torch
from torch import nn

from rl_interp import HookPoint, PolicyOutput, check_agent, run_with_cache, wrap
from rl_interp.core.agent import Agent
from rl_interp.core.check_agent import ContractError, rounding
from rl_interp.core.errors import UserError


def test_a_feed_forward_agent_unrolls_by_folding_time_into_the_batch(conv_agent, conv_obs):
    segment = torch.stack([conv_obs, conv_obs.flip(0)])
    out = conv_agent.unroll(segment)
    assert out.q_values.shape == (2, 5, 4)
    torch.testing.assert_close(out.q_values[1], conv_agent.step(conv_obs.flip(0)).q_values)


def test_a_recurrent_agent_unrolls_as_it_steps(recurrent_agent):
    obs = torch.randn(4, 2, 5)
    first = torch.tensor([[True, True], [False, False], [False, True], [False, False]])
    unrolled = recurrent_agent.unroll(obs, recurrent_agent.initial_state(2), first)
    state, values = recurrent_agent.initial_state(2), []
    for t in range(4):
        out = recurrent_agent.step(obs[t], state, first[t])
        state = out.state
        values.append(out.value)
    torch.testing.assert_close(unrolled.value, torch.stack(values))
    torch.testing.assert_close(unrolled.state[0], state[0])


def test_an_agent_that_only_unrolls_can_step():
    class Unroller(Agent):
        def unroll(self, obs, state=(), first=None):
            return PolicyOutput((state[0] + obs.sum(0),), logits=obs.cumsum(0) + state[0])

    obs = torch.ones(3, 2)
    out = Unroller().step(obs, (torch.full((3, 2), 5.0),))
    torch.testing.assert_close(out.logits, torch.full((3, 2), 6.0))
    torch.testing.assert_close(out.state[0], torch.full((3, 2), 6.0))


def test_both_kinds_of_agent_keep_the_contract(conv_agent, recurrent_agent, conv_obs):
    check_agent(conv_agent, conv_obs)
    check_agent(recurrent_agent, torch.randn(4, 5))


def test_a_users_module_becomes_an_agent_without_editing_it(conv_obs):
    module = nn.Sequential(nn.Flatten(), nn.Linear(128, 7), nn.ReLU(), nn.Linear(7, 3))
    agent = wrap(module, {"hidden": ("2", "B D")}, output="q_values")
    check_agent(agent, conv_obs)
    out, cache = run_with_cache(agent, conv_obs, names=["hidden"])
    torch.testing.assert_close(out.q_values, module(conv_obs))
    torch.testing.assert_close(cache["hidden"], module[:3](conv_obs))


def test_wrap_names_the_submodules_when_a_path_is_wrong():
    with pytest.raises(UserError, match=r"'hidden' has path '9', which is no submodule .* submodules: 0, 1"):
        wrap(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), {"hidden": ("9", "B D")})


class _BatchNormed(nn.Module):
    def forward(self, obs):
        return obs.flatten(1)[:, :3] - obs.flatten(1)[:, :3].mean(0)


@pytest.mark.parametrize(
    ("module", "points", "message"),
    [
        (_BatchNormed(), {"x": HookPoint("", "B D")}, "a batch of one gave other preferences"),
        (nn.Sequential(nn.Flatten(), nn.Linear(128, 3)), {"x": ("1", "B C H W")}, r"declares axes 'B C H W'"),
        (nn.Sequential(nn.Flatten(), nn.Linear(128, 3)), {}, "no hook points"),
        (nn.Sequential(nn.Linear(8, 3)), {"x": ("0", "B D")}, r"want \[B, A\]"),
    ],
)
def test_check_agent_says_what_is_wrong(module, points, message, conv_obs):
    with pytest.raises(ContractError, match=message):
        check_agent(wrap(module, points), conv_obs)


def test_check_agent_finds_a_state_that_first_does_not_reset(recurrent_agent):
    recurrent_agent.step = lambda obs, state=(), first=None: type(recurrent_agent).step(recurrent_agent, obs, state)
    with pytest.raises(ContractError, match="`first` on a used state"):
        check_agent(recurrent_agent, torch.randn(4, 5))


class _Reusing(Agent):
    """Decides in one piece of memory."""

    def __init__(self, writes: str):
        super().__init__()
        self.hook_points = {"layer": HookPoint("layer", "B D")}
        self.layer, self.writes = nn.Linear(5, 3), writes
        self.memory = torch.zeros(4, 3)

    def initial_state(self, batch):
        return (torch.zeros(batch, 1),)

    def step(self, obs, state=(), first=None):
        if self.writes == "observations":
            obs -= 1
        if self.writes == "state":
            state[0].add_(1)
        logits = self.layer(obs)
        return PolicyOutput(state, logits=self.memory.copy_(logits) if self.writes == "returned" else logits)


@pytest.mark.parametrize(
    ("writes", "message"),
    [
        ("observations", "step wrote into the observations"),
        ("state", "step wrote into the state"),
        ("returned", "a step wrote into what the step before it had returned"),
    ],
)
def test_check_agent_finds_memory_that_an_agent_must_leave_alone(writes, message):
    with pytest.raises(ContractError, match=message):
        check_agent(_Reusing(writes), torch.randn(4, 5))


class _ByDtype(nn.Module):
    """Scales all observations, or takes floats for scaled already."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.layer = how, nn.Linear(128, 3)

    def forward(self, obs):
        scaled = obs.float() / 255 if self.how == "scales all" or obs.dtype == torch.uint8 else obs
        return self.layer(scaled.flatten(1))


def test_check_agent_feeds_bytes_as_floats_too():
    obs = torch.randint(256, (4, 2, 8, 8), dtype=torch.uint8)
    points = {"layer": ("layer", "B D")}
    check_agent(wrap(_ByDtype("scales all"), points), obs)
    with pytest.raises(ContractError, match=r"floats led to other preferences than the same bytes: scale .* constant"):
        check_agent(wrap(_ByDtype("scales bytes only"), points), obs)


def test_check_agent_leaves_an_agent_alone_that_says_it_looks_bytes_up():
    class Looked(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.layer = nn.Embedding(256, 2), nn.Linear(20, 3)

        def forward(self, obs):
            return self.layer(self.table(obs.int() if obs.dtype == torch.uint8 else obs).flatten(1))

    obs, points = torch.randint(256, (4, 10), dtype=torch.uint8), {"layer": ("layer", "B D")}
    check_agent(wrap(Looked(), points, observation="symbols"), obs)
    with pytest.raises(ContractError, match='step takes bytes but not .* as floats .* observation="symbols"'):
        check_agent(wrap(Looked(), points), obs)


def test_check_agent_finds_preferences_that_are_not_finite_and_states_on_another_device(conv_agent, conv_obs):
    with torch.no_grad():
        conv_agent.q.bias[1] = torch.nan
    with pytest.raises(ContractError, match="NaN or infinite"):
        check_agent(conv_agent, conv_obs)
    agent = _Reusing("nothing")
    agent.initial_state = lambda batch: (torch.zeros(batch, 1, device="meta"),)
    with pytest.raises(ContractError, match="the observations are on cpu, the agent and its initial_state on"):
        check_agent(agent, torch.randn(4, 5))
    with pytest.raises(ContractError, match="given a ndarray; give a tensor"):
        check_agent(conv_agent, conv_obs.numpy())


def test_what_counts_as_rounding_follows_the_type_and_the_device_that_computes():
    processor, accelerator = torch.device("cpu"), torch.device("cuda")
    assert rounding(torch.float32, processor) < rounding(torch.float32, accelerator) < 1e-2  # TF32 there
    assert rounding(torch.float64, processor) == rounding(torch.float64, accelerator)
    assert rounding(torch.bfloat16, processor) >= torch.finfo(torch.bfloat16).eps


def test_a_difference_is_told_in_numbers_where_an_action_is_ruled_out(conv_obs):
    class Masked(_BatchNormed):
        def forward(self, obs):
            return super().forward(obs).masked_fill(torch.tensor([False, True, False]), -torch.inf)

    with pytest.raises(ContractError, match=r"largest difference \d"):
        check_agent(wrap(Masked(), {"x": HookPoint("", "B D")}), conv_obs)


def test_an_agent_in_half_precision_keeps_the_contract_too(conv_agent, recurrent_agent, conv_obs):
    check_agent(conv_agent.bfloat16(), conv_obs)
    recurrent_agent.bfloat16().initial_state = lambda batch: (torch.zeros(batch, 6, dtype=torch.bfloat16),)
    check_agent(recurrent_agent, torch.randn(4, 5).bfloat16())
