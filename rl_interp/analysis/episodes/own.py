"""Moments of the episode that an agent plays by itself, to take values from."""

from collections import OrderedDict
from threading import Lock

from rl_interp.agents.load import Loaded
from rl_interp.analysis.player import Moment, Player
from rl_interp.core.envs import make_labelled
from rl_interp.core.envs.maze.text import maze_from_text
from rl_interp.core.errors import UserError

MOST = 10_000
"""Steps that are played to come to a moment."""
_KEPT: "OrderedDict[tuple[str, str, int, str, int], Moment]" = OrderedDict()
_LOCK = Lock()


def own_moment(loaded: Loaded, seed: int, maze: str, step: int) -> Moment:
    """The moment before a step of the episode that an agent plays by itself from a seed, or from a maze as `maze_text`
    writes it. The last few are kept.

    Raises:
        UserError: the episode ends earlier, or the step is beyond `MOST`.
    """
    key = str(loaded.run.path), loaded.weights_sha256, seed, maze, step
    with _LOCK:
        if key in _KEPT:
            return _KEPT[key]
    if step > MOST:
        raise UserError(f"step {step} given to take values from; it is at most {MOST}.")
    options = {"maze": maze_from_text(maze)} if maze else None
    player = Player(loaded, make_labelled(loaded.env), seed, options)
    moment = player.look()
    while moment.step < step:
        player.act(moment.action)
        if player.ended:
            raise UserError(
                f"step {step} given to take values from; the agent's own episode of seed {seed} ends with step "
                f"{moment.step}."
            )
        moment = player.look()
    with _LOCK:
        _KEPT[key] = moment
        while len(_KEPT) > 8:
            _KEPT.popitem(last=False)
    return moment
