"""`rl-interp maps`."""

from typing import Any, Literal

import tyro

from rl_interp.agents.load import load_agent
from rl_interp.analysis.feature_maps.maps import map_run
from rl_interp.app.progress import TERMINAL


def maps(
    run: tyro.conf.Positional[str],
    hooks: tuple[str, ...] = (),
    states: int = 400,
    clusters: int = 12,
    method: Literal["kmeans", "agglomerative"] = "kmeans",
    seed: int = 0,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Cluster the positions of convolutional layers and name the clusters by ground truth, beside a random network and
    the raw pixels: a table of adjusted mutual information, a picture of each layer, and one of a state through all.

    Args:
        run: Name under runs/ or a path; of an agent in mazes, MiniGrid or Crafter.
        hooks: Hook points with positions; by default each residual sum, or all that the observation goes through.
        states: States to play.
        clusters: Of each layer.
        method: kmeans, or agglomerative (on a sample, the rest assigned to the nearest mean).
        seed: Of the episodes, the clustering and the random network.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    loaded = load_agent(run, checkpoint, device)
    return loaded.source | map_run(loaded, hooks, states, clusters, method, seed, TERMINAL)
