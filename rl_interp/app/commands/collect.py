"""`rl-interp collect`."""

from dataclasses import replace
from typing import Any, Literal

from rl_interp.analysis.playing import collect_store, store_path
from rl_interp.app.commands.environment import Info, Labels
from rl_interp.app.commands.flags import Count, FromAgent, Hook, Seed, Share
from rl_interp.app.progress import TERMINAL
from rl_interp.core.hooks import last_layer


def collect(
    agent: FromAgent,
    hook: Hook = None,
    samples: Count = 60_000,
    seed: Seed = 0,
    epsilon: Share = 0.01,
    dtype: Literal["float32", "float16"] = "float32",
    labels: Labels = "",
    info: Info = (),
) -> dict[str, Any]:
    """Play episodes and store the activations at a hook point, beside ground-truth labels.

    Args:
        agent: The agent to play.
        hook: Name of the hook point; by default fc.post, or the last layer that feeds the preferences.
        samples: Number of steps to store. Eight episodes are played side by side; of those under way when the number
            is reached, what was played is stored, and the rest is played only for labels, some of which look ahead.
        seed: Seed of the first episode; the next have the next ones, so that nearby seeds share most episodes.
        epsilon: Probability of a random action.
        dtype: Type of the stored activations.
        labels: Function labels(info, obs) that gives the ground truth of a state as numbers by name, such as
            my.py:labels, in place of what the agent was imported with.
        info: Entries of a Gymnasium environment's info that are ground truth, likewise.
    """
    loaded = agent.load()
    if labels or info:
        from rl_interp.core.envs.gym.read import labelled_by  # imports Gymnasium

        loaded = replace(loaded, env=labelled_by(loaded.env, labels, info))
    hook = hook or last_layer(loaded.agent)
    store = collect_store(loaded, hook, samples, store_path(loaded.run, hook), seed, epsilon, dtype, TERMINAL)
    return loaded.source | {
        "store": str(store.path),
        "hook": hook,
        "samples": store.samples,
        "columns": store.columns(),
    }
