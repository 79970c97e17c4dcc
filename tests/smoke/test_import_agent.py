"""An agent of the user's own code, from the command line: imported, then taken by the commands that load agents."""

import numpy as np
import pytest
import torch

import rl_interp
from rl_interp import sae
from rl_interp.analysis.episodes.values import attributions
from rl_interp.analysis.player import Player
from rl_interp.analysis.sae.runs import load_sae
from rl_interp.analysis.sae.states import states_of
from rl_interp.core.code import TRUST
from rl_interp.core.envs import make_labelled
from rl_interp.core.files import sha256
from rl_interp.core.hooks import run_with_hooks
from rl_interp.core.interventions import as_hooks
from rl_interp.core.replay import revisit
from rl_interp.sae import ClampFeature

SOURCE = """
import torch
from torch import nn
import rl_interp

class Net(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.body, self.lstm = nn.Linear(147, 16), nn.LSTM(16, 8, batch_first=batch_first)
        self.policy, self.time = nn.Linear(8, 7), int(batch_first)

    def forward(self, obs, state):
        output, state = self.lstm(self.body(obs.flatten(1).float() / 10).relu().unsqueeze(self.time), state)
        return self.policy(output.squeeze(self.time)), state

def make(first=False):
    return rl_interp.wrap(Net(first), {}, initial_state=lambda n: (torch.zeros(1, n, 8), torch.zeros(1, n, 8)))
def batch_first(): return make(True)

class Flat(nn.Module):
    def forward(self, obs):
        return obs.flatten(1).float()

class Moody(nn.Module):
    made = 0
    def __init__(self):
        super().__init__()
        Moody.made += 1
        self.flat, self.layer, self.mood = Flat(), nn.Linear(147, 7), Moody.made
    def forward(self, obs):
        return self.layer(self.flat(obs)) * self.mood

class Text(nn.Linear):
    def get_extra_state(self):
        return "text"
    def set_extra_state(self, state):
        pass

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = (nn.Sequential(Flat(), nn.Linear(147, 16), nn.ReLU()) for _ in range(2))
        self.policy = nn.Linear(32, 7)
    def forward(self, obs):
        return self.policy(torch.cat([self.one(obs), self.other(obs)], 1))

def two():
    torch.manual_seed(0)
    return rl_interp.wrap(Two(), {"one": ("one", "B D")})
def place():
    layers = Flat(), nn.Unflatten(1, (147, 1, 1)), nn.Conv2d(147, 16, 1), nn.Flatten(), nn.ReLU(), nn.Linear(16, 7)
    return rl_interp.wrap(nn.Sequential(*layers), {"place": ("2", "B C H W")})

def double(): return rl_interp.wrap(plain().double(), {}, lambda net, obs: net[1:](net[0](obs).double()))
def plain(): return nn.Sequential(Flat(), nn.Linear(147, 8), nn.ReLU(), nn.Linear(8, 7))
def bytes(): return nn.Sequential(nn.Flatten(), nn.Linear(147, 7))
def mean(): return rl_interp.wrap(plain(), {"hidden": ("1", "B D")}, output="mean")
def text(): return nn.Sequential(Flat(), Text(147, 7))
def four(): return nn.Sequential(Flat(), nn.Linear(147, 4))
def raises(): raise RuntimeError("no weights here")
def number(): return 3
"""

LINE = next(number for number, line in enumerate(SOURCE.splitlines(), 1) if "no weights here" in line)
ENV = "--env MiniGrid-Unlock-v0 --env.observation symbols"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the user's file, and nothing that he trusts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(TRUST, str(tmp_path / "trusted"))
    (tmp_path / "my.py").write_text(SOURCE)
    return tmp_path


def sentence(run, command):
    status, _, error = run(command)
    assert status == 1
    return error


@pytest.mark.parametrize("make", ["make", "batch_first"])
def test_an_agent_becomes_a_run_that_decides_as_it_does(run, folder, make):
    status, result, _ = run(f"import agent my.py:{make} {ENV} --name mine")
    assert (status, result["kind"], result["checked"]) == (0, "own", 0)
    assert result["parameters"] == 147 * 16 + 16 + 4 * 8 * (16 + 8 + 2) + 8 * 7 + 7
    assert result["hook_points"] == ["body", "lstm.output", "lstm.h", "lstm.c", "policy"]
    _, scores, _ = run("evaluate mine --episodes 2 --seed 3")
    _, again, _ = run("evaluate mine --episodes 2 --seed 3")
    assert scores["returns"] == again["returns"]
    loaded = rl_interp.load_agent("mine")
    assert loaded.agent.observation == "symbols"
    for hook in ("lstm.output", "lstm.c"):
        assert run(f"collect mine --hook {hook} --samples 100")[1]["samples"] >= 100


def test_a_plain_module_takes_what_its_output_means_from_the_command(run, folder):
    assert run(f"import agent my.py:plain {ENV} --name greedy --output q_values")[0] == 0
    assert rl_interp.load_agent("greedy").has_q_values
    assert run(f"import agent my.py:plain {ENV} --name policy")[0] == 0
    assert not rl_interp.load_agent("policy").has_q_values


def test_a_shared_run_needs_the_file_and_the_users_trust(run, folder, monkeypatch):
    assert run(f"import agent my.py:plain {ENV} --name mine")[0] == 0
    digest = sha256(folder / "my.py")
    monkeypatch.setenv(TRUST, str(folder / "another user"))
    assert f"my.py:plain is code of {folder}/my.py (sha256 {digest})" in sentence(run, "evaluate mine --episodes 1")
    assert run(f"evaluate mine --episodes 1 --trust {digest}")[0] == 0
    assert run("evaluate mine --episodes 1")[0] == 0
    (folder / "my.py").rename(folder / "moved.py")
    assert "there is no file my.py" in sentence(run, "evaluate mine --episodes 1")
    (folder / "my.py").write_text(SOURCE + "\n")
    assert "my.py has changed since my.py:plain was recorded" in sentence(run, "evaluate mine --episodes 1")
    assert "'abc' given as the sha256" in sentence(run, "evaluate mine --episodes 1 --trust abc")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("my.py:raises", f"my.py:raises raised an error: RuntimeError: no weights here (line {LINE}); mend it there."),
        ("my.py:number", "my.py:number returned a int; it must return an rl_interp.Agent or an nn.Module."),
        ("my.py:four", "my.py:four makes an agent with 4 logits, and MiniGrid-Unlock-v0 has 7 actions: left, right"),
        ("my.py:bytes", "can't take observations uint8 [3, 3, 7, 7] (RuntimeError: mat1"),
        ("my.py:mean", "makes an agent of mean, and the actions of MiniGrid-Unlock-v0 are discrete"),
        ("my.py:Moody", "decides differently when it is made again with the same weights"),
        ("my.py:text", "the state_dict of what my.py:text makes has 'module.1._extra_state', a str"),
        ("my.py:mkae", "unknown function of my.py 'mkae'"),
        ("our.py:make", "there is no file our.py"),
    ],
)
def test_what_does_not_fit_is_a_sentence_and_leaves_no_run(run, folder, command, message):
    assert message in sentence(run, f"import agent {command} {ENV} --name mine")
    assert not (folder / "runs").exists()


def test_a_name_that_is_taken_is_left_alone(run, folder):
    assert run(f"import agent my.py:plain {ENV} --name mine")[0] == 0
    assert "already holds a run" in sentence(run, f"import agent my.py:make {ENV} --name mine")


@pytest.mark.full
def test_the_commands_that_load_agents_take_it(run, folder):
    assert run(f"import agent my.py:make {ENV} --name mine")[0] == 0
    assert run("collect mine --hook lstm.h --samples 800")[0] == 0
    status, fitted, _ = run("sae fit mine --hook lstm.h --latents 32 --k 4 --epochs 4 --episodes 2 --name mine-sae")
    assert status == 0
    assert fitted["fvu"] < 0.5
    assert len(run("sae evaluate mine-sae --episodes 1")[1]["returns"]["spliced"]) == 1
    assert (folder / run("sae report mine-sae")[1]["report"]).is_file()
    assert run("saliency mine --steps 4")[1]["frames"] == 4
    assert "lstm.h" in run("probe mine --hooks lstm.h --samples 800")[1]["means"]
    assert "x" in run("erase mine --hook lstm.h --concepts x --samples 800 --episodes 0")[1]["by_concept"]


def test_of_a_layer_that_is_one_of_two_streams_effects_are_those_beside_what_the_other_sees(run, folder):
    assert run(f"import agent my.py:two {ENV} --name mine")[0] == 0
    assert run("collect mine --hook one --samples 300")[0] == 0
    status, found, error = run("sae fit mine --hook one --latents 16 --k 2 --epochs 1 --episodes 0 --name mine-sae")
    assert status == 0, error
    fitted = load_sae("mine-sae")
    agent, on = fitted.agent.agent, states_of(fitted, fitted.held_out_rows, 1000)
    assert on is not None
    samples = np.unique(fitted.held_out_rows)
    obs = torch.from_numpy(np.stack([each.obs for each in revisit(fitted.agent.env, fitted.store, samples)]))
    with torch.no_grad():
        own = agent.step(obs).preferences
        clamp = ClampFeature("one", sae=fitted.sae, feature=2, value=1.5)
        clamped = run_with_hooks(agent, obs, hooks=as_hooks([clamp])).preferences
        spliced = run_with_hooks(agent, obs, hooks=as_hooks([fitted.splice()])).preferences
    torch.testing.assert_close(on.preferences, own)
    moved = on.head(on.x + (1.5 - fitted.sae.encode(on.x)[:, 2])[:, None] * fitted.sae.W_dec[2])
    torch.testing.assert_close(moved, clamped, atol=1e-5, rtol=1e-4)
    assert found["action_agreement"] == pytest.approx((own.argmax(1) == spliced.argmax(1)).float().mean().item())
    latents, through = fitted.sae.encode(on.x), agent.get_submodule("module.policy").weight[:, :16]
    expected = sae.direct_effects(fitted.sae, through) * (latents.sum(0) / (latents > 0).sum(0).clamp(min=1))[:, None]
    torch.testing.assert_close(sae.integrated_effects(fitted.sae, on.x, on.head), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("hook", "head"), [("2", torch.nn.Linear), ("1", None)])
def test_an_agent_that_computes_in_double_precision_is_taken_apart_too(run, folder, hook, head):
    assert run(f"import agent my.py:double {ENV} --name mine")[0] == 0
    assert run(f"collect mine --hook {hook} --samples 300")[0] == 0
    status, _, error = run(f"sae fit mine --hook {hook} --latents 16 --k 2 --epochs 1 --episodes 1 --name mine-sae")
    assert status == 0, error
    fitted = load_sae("mine-sae")
    on = states_of(fitted, fitted.held_out_rows, 1000)
    assert head is None or isinstance(on.head, head)
    assert on.preferences.dtype == torch.float32
    assert sae.integrated_effects(fitted.sae, on.x, on.head).shape == (16, 7)
    moment = Player(fitted.agent, make_labelled(fitted.agent.env), 0, None).look()
    assert attributions(fitted.agent, moment, hook, fitted).shape == (16,)


@pytest.mark.full
def test_a_dictionary_of_a_layer_with_a_single_position_is_fitted_and_reported(run, folder):
    assert run(f"import agent my.py:place {ENV} --name mine")[0] == 0
    assert run("collect mine --hook place --samples 300")[0] == 0
    assert run("sae fit mine --hook place --latents 16 --k 2 --epochs 1 --episodes 0 --name mine-sae")[0] == 0
    status, _, error = run("sae report mine-sae --top 2 --clips 0 --maps 0")
    assert status == 0, error


TRUTH = """
def labels(info, obs):
    return {"leans": bool(obs[2] > 0)}

def agent():
    from torch import nn
    return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
"""


@pytest.mark.full
def test_labels_that_are_given_when_collecting_are_concepts_of_the_dictionary(run, folder):
    (folder / "truth.py").write_text(TRUTH)
    assert run("import agent truth.py:agent --env CartPole-v1 --name mine")[0] == 0
    _, stored, _ = run("collect mine --samples 600 --env.labels truth.py:labels")
    assert (stored["hook"], stored["columns"][-1]) == ("1", "leans")
    assert run("sae fit mine --latents 16 --k 2 --epochs 2 --episodes 0 --name mine-sae")[0] == 0
    assert "leans, as truth.py:labels says" in (folder / run("sae report mine-sae")[1]["report"]).read_text()
