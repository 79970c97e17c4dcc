"""Episodes to look into: recorded from a recipe, changed anywhere, and played on beside what happened."""

from rl_interp.analysis.episodes.along import values_along
from rl_interp.analysis.episodes.changes import RandomControl, parse_changes
from rl_interp.analysis.episodes.clusters import Clustered, clustered, clustered_alike
from rl_interp.analysis.episodes.effects import Effect, effect
from rl_interp.analysis.episodes.film import film
from rl_interp.analysis.episodes.looking import saliency_along, vectors_seen
from rl_interp.analysis.episodes.recording import MOST_THINKING, Part, Recipe, Recording, editing, record
from rl_interp.analysis.episodes.values import attributions, features, values

__all__ = [
    "MOST_THINKING",
    "Clustered",
    "Effect",
    "Part",
    "RandomControl",
    "Recipe",
    "Recording",
    "attributions",
    "clustered",
    "clustered_alike",
    "editing",
    "effect",
    "features",
    "film",
    "parse_changes",
    "record",
    "saliency_along",
    "values",
    "values_along",
    "vectors_seen",
]
