"""`rl-interp saliency`."""

from typing import Annotated, Any, Literal

from rl_interp.analysis.sae.runs import load_autoencoder
from rl_interp.analysis.saliency_evaluation import evaluate_saliency
from rl_interp.analysis.saliency_time import through_time
from rl_interp.analysis.saliency_video import film
from rl_interp.app.commands.flags import (
    Autoencoder,
    Count,
    CountOrZero,
    FromAgent,
    OptionalCount,
    Output,
    Seed,
    optional,
)
from rl_interp.app.progress import TERMINAL
from rl_interp.saliency import default_target

SaliencyTarget = Annotated[str | None, optional("TARGET")]


def saliency(
    agent: FromAgent,
    output: Output = None,
    method: str = "perturbation",
    target: SaliencyTarget = None,
    steps: Count = 450,
    skip: Annotated[CountOrZero | None, optional("INT")] = None,
    seed: Seed = 0,
    sae: Autoencoder = None,
    beside: tuple[str, ...] = (),
    highlights: CountOrZero = 0,
    cut_by: Literal["spread", "change"] = "spread",
    tracks: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Film an episode with a saliency map on every frame, at the game's own pace.

    Args:
        agent: The agent to explain.
        output: The .mp4 or .gif to write, or the .png of a sheet of 12 frames; by default an .mp4 in the run's videos/.
        method: perturbation, greydanus (the published masks and blur), sarfa, occlusion, rise, gradient,
            input-gradient, smoothgrad, integrated-gradients, guided-backprop, grad-cam or lrp; of vectors also
            resample (how much the agent goes by each input, whatever it is now).
        target: What the map explains: chosen (of continuous actions, how far the action goes the way that it goes,
            which is their default), advantage (the default of others), log-probability, value, policy-change or
            value-change (published with greydanus), q:ACTION or logp:ACTION such as q:LEFT, unit:HOOK:N such as
            unit:fc.post:12, feature:N of --sae, or actor-critic (policy and value at once, in two colours; with
            greydanus).
        steps: Length of the film in environment steps; it ends with the episode.
        skip: Number of steps to play before the film starts; by default it starts when the agent's actions begin to
            make a difference. A film of a feature or a unit starts where it fires.
        seed: Seed of the episode.
        sae: Run of an autoencoder on this agent, for feature:N.
        beside: Names of further methods, whose maps are drawn beside the first.
        highlights: Number of clips, cut together, around moments of the episode; 0 for a film of --steps in a row.
        cut_by: Which moments --highlights are: spread, where the actions' values lie farthest apart, or change, where
            they have moved most since the step before.
        tracks: Names of targets, such as feature:7 value unit:fc.post:12, whose values are drawn under the frames over
            time.
    """
    loaded = agent.load()
    target = target or default_target(loaded.agent.continuous)
    fitted = load_autoencoder(sae, agent.device, (loaded,), TERMINAL) if sae else None
    path = output or loaded.run.outputs / "videos" / f"{method}-{target.replace(':', '-')}-seed{seed}.mp4"
    return loaded.source | film(
        loaded, path, method, target, steps, skip, seed, fitted, TERMINAL, beside, highlights, tracks, cut_by
    )


def saliency_evaluate(
    agent: FromAgent,
    methods: tuple[str, ...] = (),
    target: SaliencyTarget = None,
    episodes: Count = 20,
    states: Count = 200,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Test saliency methods on an agent: deletion, insertion, randomisation, counterfactuals, and controls.

    Args:
        agent: The agent to explain.
        methods: Names of methods, as `rl-interp saliency --method` takes them, and entities (Shapley values of the
            things on the screen); by default all that the agent admits.
        target: What the maps explain, as for `rl-interp saliency`.
        episodes: Number of episodes; intervals are over them.
        states: Number of states in all, spread evenly over the episodes.
        seed: Seed of the first episode.
    """
    loaded = agent.load()
    target = target or default_target(loaded.agent.continuous)
    return evaluate_saliency(loaded, methods, target, episodes, states, seed, TERMINAL)


def saliency_time(
    agent: FromAgent,
    output: Output = None,
    step: OptionalCount = None,
    last: Count = 8,
    method: str = "perturbation",
    target: SaliencyTarget = None,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Show what in the last steps mattered to one decision of an agent with memory: a map of each of them.

    Each observation is changed alone, and the agent is then shown the rest as it went.

    Args:
        agent: The agent to explain, one with memory.
        output: The .png to write; by default in the run's analyses/.
        step: The decision, as a step of the episode; by default, of the first 200, that at which the actions' values
            lie farthest apart.
        last: Number of steps up to the decision, and with it.
        method: A method, as for `rl-interp saliency`.
        target: What of the decision the maps explain, as for `rl-interp saliency`.
        seed: Seed of the episode.
    """
    loaded = agent.load()
    target = target or default_target(loaded.agent.continuous)
    path = output or loaded.run.outputs / "analyses" / f"saliency-time-{target.replace(':', '-')}-seed{seed}.png"
    return loaded.source | through_time(loaded, path, step, last, method, target, seed, TERMINAL)
