"""`rl-interp maps`."""

from typing import Annotated, Any, Literal

from rl_interp.analysis.feature_maps.maps import map_run
from rl_interp.app.commands.flags import Count, FromAgent, Seed, several
from rl_interp.app.progress import TERMINAL


def maps(
    agent: FromAgent,
    hooks: Annotated[tuple[str, ...], several("HOOK")] = (),
    states: Count = 400,
    clusters: Count = 12,
    method: Literal["kmeans", "agglomerative"] = "kmeans",
    seed: Seed = 0,
) -> dict[str, Any]:
    """Cluster the positions of convolutional layers, and name the clusters by ground truth.

    A random network and the raw pixels are clustered beside them. Writes a table of adjusted mutual information, a
    picture of each layer, and one of a state through all layers.

    Args:
        agent: An agent in mazes, MiniGrid or Crafter.
        hooks: Hook points with positions; by default each residual sum, or all that the observation goes through.
        states: Number of states to play.
        clusters: Number of clusters in each layer.
        method: How to cluster: kmeans, or agglomerative (a sample; the rest go to the nearest mean).
        seed: Seed of the episodes, the clustering and the random network.
    """
    loaded = agent.load()
    return loaded.source | map_run(loaded, hooks, states, clusters, method, seed, TERMINAL)
