"""`rl-interp collect`."""

from typing import Any, Literal

from rl_interp.analysis.playing import collect_store, store_path
from rl_interp.app.commands.flags import Count, FromAgent, Seed, Share
from rl_interp.app.progress import TERMINAL


def collect(
    agent: FromAgent,
    hook: str = "fc.post",
    samples: Count = 60_000,
    seed: Seed = 0,
    epsilon: Share = 0.01,
    dtype: Literal["float32", "float16"] = "float32",
) -> dict[str, Any]:
    """Play episodes and store the activations at a hook point, beside ground-truth labels.

    Args:
        agent: The agent to play.
        hook: Name of the hook point.
        samples: Number of steps to store. Eight episodes are played side by side; of those under way when the number
            is reached, what was played is stored, and the rest is played only for labels that look ahead.
        seed: Seed of the first episode; episode i has seed + i.
        epsilon: Probability of a random action.
        dtype: Type of the stored activations.
    """
    loaded = agent.load()
    store = collect_store(loaded, hook, samples, store_path(loaded.run, hook), seed, epsilon, dtype, TERMINAL)
    return loaded.source | {
        "store": str(store.path),
        "hook": hook,
        "samples": store.samples,
        "columns": store.columns(),
    }
