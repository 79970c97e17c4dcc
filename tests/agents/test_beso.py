"""BESO: the contract, its denoiser, what it is trained on, and what its hooks see."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rl_interp.agents import beso
from rl_interp.agents.beso import Demonstrations, Sampling, load_demonstrations, save_demonstrations
from rl_interp.agents.beso.training import Batch, clip, loss_of
from rl_interp.agents.load import load_agent
from rl_interp.core.check_agent import check_agent
from rl_interp.core.envs import TwoWaysConfig, make_vector
from rl_interp.core.errors import HookError, RunError, UserError
from rl_interp.core.hooks import run_with_cache, run_with_hooks
from rl_interp.core.interventions import During, Zero
from rl_interp.core.rollout import Actor, evaluate
from rl_interp.core.run import Run

ENV = "rl_interp/TwoWays-v0"
SMALL = dict(layers=1, width=16, heads=2, hidden=16, window=3, demonstrations=20, num_envs=16, agent_steps=400,
             log_every=100, checkpoint_every=0, eval_episodes=3, warmup=50)  # fmt: skip


def config(**changes):
    return beso.default_config(ENV, **{**SMALL, **changes})


def agent(**changes):
    """One of which every weight matters."""
    torch.manual_seed(0)
    made = beso.make_agent(config(**changes)).eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    made.scaling.fit(torch.randn(50, 2), 0.1 * torch.randn(50, 2))
    return made


def obs(count=4):
    return torch.from_numpy(make_vector(TwoWaysConfig(), count).reset(0))


@pytest.mark.parametrize("objective", ["diffusion", "mse", "mixture"])
def test_it_keeps_the_contract(objective):
    check_agent(agent(objective=objective), obs())


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_it_keeps_the_contract_where_one_pass_is_enough(guidance):
    made = agent(sampling=Sampling(guidance=guidance, sampler="heun"))
    assert ("block0.sum" in made.hook_points) == (guidance == 1)
    check_agent(made, obs())


def test_what_it_denoises_does_not_depend_on_what_comes_after():
    made = agent()
    noised, states, goal = torch.randn(2, 3, 2), torch.randn(2, 3, 2), torch.randn(2, 2)
    before = made.denoiser(noised, torch.tensor([0.1, 0.7]), states, goal)
    noised[:, 2], states[:, 2] = 5.0, -5.0
    after = made.denoiser(noised, torch.tensor([0.1, 0.7]), states, goal)
    assert torch.allclose(before[:, :2], after[:, :2], atol=1e-6)
    assert not torch.allclose(before[:, 2], after[:, 2], atol=1e-2)


def test_at_little_noise_it_returns_what_it_is_given():
    made = agent()
    noised = torch.randn(2, 3, 2)
    found = made.denoiser(noised, torch.full((2,), 1e-6), torch.randn(2, 3, 2), torch.randn(2, 2))
    assert torch.allclose(found, noised, atol=1e-4)


def test_its_loss_is_the_error_of_the_denoised_action_in_units_of_c_out():
    made = agent(goal_drop=0.0)
    windows = beso.demonstrate(TwoWaysConfig(), 5, 0).draw(8, 3, 0.5, np.random.default_rng(0))
    batch = Batch.of(made, windows, np.random.default_rng(1))
    noised = batch.actions + batch.sigma[:, None, None] * batch.noise
    denoised = made.denoiser(noised, batch.sigma, batch.states, batch.goal)
    weight = (batch.sigma**2 + 0.25) / (batch.sigma * 0.5) ** 2
    want = (weight[:, None, None] * (denoised - batch.actions) ** 2).mean()
    assert torch.allclose(loss_of(made, batch), want, rtol=1e-4)


def test_the_mixtures_loss_is_a_negative_log_likelihood():
    made = agent(objective="mixture", components=2, goal_drop=0.0)
    windows = beso.demonstrate(TwoWaysConfig(), 5, 0).draw(8, 3, 0.5, np.random.default_rng(0))
    batch = Batch.of(made, windows, np.random.default_rng(1))
    weights, means, spreads = made.mixture(batch.states, batch.goal)
    law = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=weights),
        torch.distributions.Independent(torch.distributions.Normal(means, spreads.exp()), 1),
    )
    want = -law.log_prob(batch.actions).mean() - np.log(2 * np.pi)  # of two numbers, whose constant is left out
    assert torch.allclose(loss_of(made, batch), want, rtol=1e-4, atol=1e-4)


def test_guidance_goes_on_from_what_is_done_without_a_goal():
    made = agent()
    noised, states, goal = torch.randn(4, 3, 2), torch.randn(4, 3, 2), torch.randn(4, 2)

    def at(guidance):
        made.sampling = Sampling(guidance=guidance)
        return made.guided_by(noised, 0.5, states, goal)

    assert torch.allclose(at(2.0) - at(0.0), 2 * (at(1.0) - at(0.0)), atol=1e-5)
    assert torch.equal(at(0.0), made.denoiser(noised, torch.full((4,), 0.5), states, torch.zeros_like(goal)))


def test_a_decision_follows_from_what_was_seen_and_from_a_key_that_goes_on():
    made, seen = agent(), obs()
    out = made.step(seen)
    assert torch.equal(out.actions, made.step(seen).actions)
    later = made.step(seen, made.after_action(made.initial_state(4), out.actions))
    assert not torch.allclose(out.actions, later.actions)
    seeded = made.reseeded(made.initial_state(4), np.random.default_rng(1))
    assert not torch.allclose(out.actions, made.step(seen, seeded).actions)


def test_it_sees_the_last_states_of_its_episode_alone():
    made, state = agent(), None
    seen = torch.randn(6, 1, 4)
    for now in seen:
        out = made.step(now, state or made.initial_state(1))
        state = out.state
    window, count, _ = state
    assert torch.equal(window[0], seen[3:, 0, :2])
    assert int(count) == 3
    fresh = made.step(seen[0], state, torch.tensor([True]))
    assert torch.allclose(fresh.actions, made.step(seen[0]).actions, atol=1e-5)


def test_hooks_see_each_denoising_step_with_and_without_the_goal():
    made = agent()
    names = ["block0.sum", "block0.sum@1", "unconditional.block0.sum", "block0.z@2", "guided"]
    _, cache = run_with_cache(made, obs(), names=names)
    assert {name: tuple(cache[name].shape) for name in names} == {
        "block0.sum": (1, 3, 4, 8, 16), "block0.sum@1": (1, 4, 8, 16), "unconditional.block0.sum": (1, 3, 4, 8, 16),
        "block0.z@2": (1, 4, 2, 8, 8), "guided": (1, 3, 4, 3, 2),
    }  # fmt: skip
    assert torch.equal(cache["block0.sum"][:, 1], cache["block0.sum@1"])
    assert cache.phases("block0.sum") == ["denoise"]
    assert cache.phases("unconditional.block0.sum") == ["denoise_unconditional"]
    goal = (cache["block0.sum"] - cache["unconditional.block0.sum"]).abs().amax((0, 1, 2, 4))
    assert goal[0] == 0  # what stands before the goal can't know it
    assert goal[1:].min() > 0


def test_the_step_that_is_acted_in_has_points_of_its_own():
    made, seen = agent(), obs()
    state = made.step(seen).state
    first = torch.tensor([True, False, True, False])  # so that these act in the first, second, first, second step
    names = ["block0.sum", "block0.state", "block0.action@1", "unconditional.block0.action"]
    _, cache = run_with_cache(made, seen, state, names=names, first=first)
    at = torch.tensor([0, 1, 0, 1])
    assert torch.equal(cache["block0.state"], cache["block0.sum"][:, :, range(4), 2 + 2 * at])
    assert torch.equal(cache["block0.action@1"], cache["block0.sum"][:, 1, range(4), 3 + 2 * at])
    assert cache["unconditional.block0.action"].shape == (1, 3, 4, 16)
    whole, push = made.step(seen, state, first).actions, torch.arange(16.0)

    def added(value, site):
        return value + push

    def added_there(value, site):
        value[range(4), 3 + 2 * at] += push
        return value

    by_point = run_with_hooks(made, seen, state, first=first, hooks={"block0.action": added}).actions
    by_place = run_with_hooks(made, seen, state, first=first, hooks={"block0.sum": added_there}).actions
    assert torch.equal(by_point, by_place)
    assert not torch.allclose(by_point, whole, atol=1e-3)


def test_an_intervention_at_one_denoising_step_is_that_of_its_tick():
    made = agent()
    plain = made.step(obs()).actions
    by_name = run_with_hooks(made, obs(), hooks={"block0.mlp@1": Zero("block0.mlp@1")}).actions
    by_tick = run_with_hooks(made, obs(), hooks={"block0.mlp": During(Zero("block0.mlp"), ticks=[1])}).actions
    assert torch.equal(by_name, by_tick)
    assert not torch.allclose(by_name, plain)
    with pytest.raises(HookError, match="unknown hook point 'block0.mlp@3'"):
        run_with_cache(made, obs(), names=["block0.mlp@3"])


def test_windows_lie_within_their_episodes_and_their_goals_after_them():
    lengths = [2, 5, 9]
    episodes = [
        (np.arange(n + 1)[:, None] + 100.0 * i, np.arange(n)[:, None] + 100.0 * i) for i, n in enumerate(lengths)
    ]
    found = Demonstrations.of(episodes, "here").draw(400, 4, 0.5, np.random.default_rng(0))
    number, first = np.divmod(found.states[:, 0, 0], 100)
    assert (found.goals[:, 0] // 100 == number).all()
    last = np.array(lengths)[number.astype(int)]
    assert (found.goals[:, 0] % 100 >= np.minimum(first + 4, last)).all()
    assert (found.there.sum(1) == np.minimum(4, last)).all()
    assert np.array_equal(found.states[found.there], found.actions[found.there])
    at_end = (found.goals[:, 0] % 100 == last)[number == 2]
    assert 0.5 < at_end.mean() < 0.85
    assert {int(each) for each in first[number == 2]} == set(range(6))


def test_goals_are_left_out_whole_or_number_by_number():
    windows = beso.demonstrate(TwoWaysConfig(), 5, 0).draw(500, 3, 0.5, np.random.default_rng(0))
    left_out = {}
    for by in ("whole", "element"):
        made = agent(goal_drop=0.3, goal_drop_by=by)
        left_out[by] = (Batch.of(made, windows, np.random.default_rng(0)).goal == 0).numpy()
    whole, element = left_out["whole"], left_out["element"]
    assert (whole[:, 0] == whole[:, 1]).all()
    assert 0.22 < whole.mean() < 0.38
    assert 0.22 < element.mean() < 0.38
    assert element.all(1).mean() < 0.16


def test_a_resumed_training_is_that_which_was_never_stopped(tmp_path):
    whole = beso.Training(config(), 0, "cpu")
    while whole.agent_steps < 400:
        whole.advance()
    stopped = beso.Training(config(), 0, "cpu")
    while stopped.agent_steps < 200:
        stopped.advance()
    run = Run.create(tmp_path / "run", "beso", config(), 0)
    run.save_checkpoint(stopped.agent_steps, stopped.agent.state_dict(), stopped.state())
    resumed = beso.Training(config(), 0, "cpu")
    resumed.restore(run.load_weights(), run.load_state(), run.path)
    while resumed.agent_steps < 400:
        resumed.advance()
    for ours, right in zip(resumed.agent.parameters(), whole.agent.parameters(), strict=True):
        assert torch.equal(ours, right)
    loaded = load_agent(run.path, device="cpu")
    scores = evaluate(loaded.agent, make_vector(loaded.env, 2), 4, seed=0)
    assert scores.summary(loaded.env).keys() >= {"success_rate", "goals_reached", "way_entropy"}


@pytest.mark.parametrize("objective", ["diffusion", "mse", "mixture"])
def test_training_learns_what_is_demonstrated(objective):
    training = beso.Training(config(objective=objective, agent_steps=10**6, learning_rate=1e-2), 0, "cpu")
    losses = []
    for _ in range(4):
        for _ in range(25):
            training.advance()
        losses.append(training.metrics()["loss"])
    assert losses[-1] < losses[0] - 0.02


def test_its_average_follows_the_weights_that_are_trained():
    training = beso.Training(config(averaging=0.5), 0, "cpu")
    pairs = list(zip(training.agent.parameters(), training.learner.parameters(), strict=True))
    before = [ours.clone() for ours, _ in pairs]
    training.advance()
    kept = min(0.5, 2 / 11)
    for old, (ours, trained) in zip(before, pairs, strict=True):
        assert torch.allclose(ours, kept * old + (1 - kept) * trained, atol=1e-6)


@pytest.mark.parametrize("most", [0.5, 1e3])
def test_gradients_are_clipped_as_pytorch_does(most):
    ours = [torch.randn(3, 4), torch.randn(5), torch.randn(1, 2, 2)]
    theirs = [torch.nn.Parameter(torch.zeros_like(each)) for each in ours]
    for weight, gradient in zip(theirs, ours, strict=True):
        weight.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(theirs, most)
    clip(ours, most)
    for gradient, weight in zip(ours, theirs, strict=True):
        assert torch.allclose(gradient, weight.grad, rtol=1e-5)


def test_an_actor_draws_other_noise_for_another_seed():
    made, shown = agent(), obs().numpy()
    first = np.ones(4, bool)
    acts = [Actor(made, 4, np.random.default_rng(seed)).act(shown, first, 0.0) for seed in (0, 0, 1)]
    assert np.array_equal(acts[0], acts[1])
    assert not np.allclose(acts[0], acts[2])


def test_demonstrations_are_kept_in_a_folder(tmp_path):
    made = beso.demonstrate(TwoWaysConfig(), 3, 0)
    save_demonstrations(made, tmp_path / "kept")
    again = load_demonstrations(tmp_path / "kept")
    for name in ("states", "actions", "starts"):
        assert np.array_equal(getattr(again, name), getattr(made, name))
    path = tmp_path / "kept" / "states.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    with pytest.raises(RunError, match="states.npy"):
        load_demonstrations(tmp_path / "kept")


def masked(states, actions, lengths):
    """Arrays `[E, T, ...]` and a mask, with numbers beyond the ends that must not be read."""
    rng = np.random.default_rng(0)
    longest = max(lengths)
    mask = (np.arange(longest) < np.array(lengths)[:, None]).astype(np.float64)
    return rng.normal(size=(len(lengths), longest, states)), rng.normal(size=(len(lengths), longest, actions)), mask


@pytest.mark.parametrize("published", ["kitchen", "block pushing"])
def test_published_demonstrations_are_read_as_they_are(published, tmp_path):
    states, actions, mask = masked(60, 9, [5, 3]) if published == "kitchen" else masked(16, 2, [5, 3])
    if published == "kitchen":  # leads with time
        files = {
            "observations_seq": states.swapaxes(0, 1),
            "actions_seq": actions.swapaxes(0, 1),
            "existence_mask": mask.T,
        }
    else:
        files = {
            "multimodal_push_observations": states,
            "multimodal_push_actions": actions,
            "multimodal_push_masks": mask,
        }
    for name, array in files.items():
        np.save(tmp_path / f"{name}.npy", array)
    found = load_demonstrations(tmp_path)
    assert len(found) == 2
    for number, length in enumerate([5, 3]):
        seen, done = found.episode(number)
        assert np.allclose(seen, states[number, :length], atol=1e-6)
        assert np.allclose(done, actions[number, : length - 1], atol=1e-6)


STATES, ACTIONS = np.zeros((4, 2)), np.zeros((3, 2))
NAN = np.full((3, 2), np.nan)


@pytest.mark.parametrize(
    ("episodes", "sentence"),
    [
        ([], "has no episodes"),
        ([(STATES, ACTIONS), (STATES, ACTIONS[:2])], "episode 1 of here is ragged, with 4 states and 2 actions"),
        ([(STATES[:1], ACTIONS[:0])], "episode 0 of here is ragged"),
        ([(STATES, ACTIONS), (STATES[:, :1], ACTIONS)], "episode 1 of here has states of 1 numbers"),
        ([(STATES, NAN)], "episode 0 of here has actions that are NaN or infinite"),
    ],
)
def test_demonstrations_that_make_no_sense_are_refused(episodes, sentence):
    with pytest.raises(UserError, match=sentence):
        Demonstrations.of(episodes, "here")


def test_what_has_no_goals_or_no_demonstrations_is_refused(tmp_path):
    with pytest.raises(UserError, match="CartPole-v1 has no goal among what it shows"):
        beso.default_config("CartPole-v1")
    with pytest.raises(UserError, match=r"width=16 given with heads=3; it must be a multiple"):
        config(heads=3)
    with pytest.raises(UserError, match="has no demonstrations; wanted is a folder"):
        beso.Training(config(data=str(tmp_path)), 0, "cpu")
    wide = Demonstrations.of([(np.zeros((3, 5)), np.zeros((2, 2)))], "here")
    save_demonstrations(wide, tmp_path / "wide")
    with pytest.raises(UserError, match=r"states of 5 numbers and actions of 2, and rl_interp/TwoWays-v0 has 2 and 2"):
        beso.Training(config(data=str(tmp_path / "wide")), 0, "cpu")


def test_goals_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"goals of 3 numbers given; those of rl_interp/TwoWays-v0 have 2"):
        agent().goal_states(torch.zeros(1, 3))
    with pytest.raises(UserError, match=r"observations of 5 numbers given; this agent is of rl_interp/TwoWays-v0"):
        agent().step(torch.zeros(2, 5))


def test_sampling_can_be_changed_after_training():
    made = agent()
    made.sampling = replace(made.sampling, steps=7, guidance=1.0)
    assert "block0.sum@6" in made.hook_points
    assert "unconditional.block0.sum" not in made.hook_points
    check_agent(made, obs())
