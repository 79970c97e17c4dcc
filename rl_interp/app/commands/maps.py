"""`rl-interp maps`."""

from typing import Any, Literal

import tyro

from rl_interp.agents.load import load_agent
from rl_interp.analysis.feature_maps.maps import feature_maps, observe, write
from rl_interp.core.errors import UserError
from rl_interp.core.receptive_fields import check_spatial, spatial_points


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
    # A decoder's positions are about what it draws, not about what is seen.
    there = [name for name in spatial_points(loaded.agent) if not name.startswith("decoder.")]
    if not there:
        raise UserError(f"{loaded.run.path} has no layer with positions to map: it sees a vector; give another agent.")
    chosen = hooks or tuple(name for name in there if name.endswith(".sum")) or tuple(there)
    for hook in chosen:
        check_spatial(loaded.agent, hook)
    seen = observe(loaded, states, seed)
    found = feature_maps(loaded, chosen, seen, clusters, method, seed)
    folder = loaded.run.path / "analyses" / f"maps-{method}-{clusters}"
    best = {hook: {kind: each.information for kind, each in kinds.items()} for hook, kinds in found.items()}
    return loaded.source | write(loaded, seen, found, folder) | {"states": states, "information": best}
