"""Answers about what an agent of Sokoban plans."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes.changes import controlled
from rl_interp.analysis.sokoban.plan import Plans, arrows, arrows_of_what_came, board_in, cells_that_differ, plans_in
from rl_interp.analysis.sokoban.play import sokoban_env
from rl_interp.analysis.sokoban.reading import CONCEPTS, best_point, load_probes, probes_at, scores_at
from rl_interp.app.explorer.asked import Asked
from rl_interp.app.explorer.wire import answer, array
from rl_interp.core.errors import RunError, UserError

_CONTROLS = 20


def plan(asked: Asked) -> Response:
    """The plan that probes read in a moment: arrows by look, tick and concept; how well they read; under changes, the
    same again, and of how many cells it differs, beside random changes of the same size."""
    found, recording, moment = asked.opened(), asked.recording(), asked.moment()
    env = sokoban_env(found.loaded)
    wanted, kernel, thinking = asked.text("layer"), asked.number("kernel"), asked.number("thinking")
    try:
        layer, layers = _layer(found.loaded, wanted)
        scores = scores_at(found.loaded, layer, kernel)
    except (UserError, RunError) as error:  # what is to be done first, which the panel says in its place
        return answer({"missing": str(error)})
    probes, board = probes_at(found.loaded, layer, kernel), board_in(env, moment)
    with found.agent(asked.wanted) as loaded:
        changes = asked.changes(loaded)
        before = plans_in(loaded, moment, probes, thinking=thinking)
        about: dict[str, Any] = {"changed": None}
        if changes:
            after = plans_in(loaded, moment, probes, changes, thinking)
            random = plans_in(
                loaded, moment, probes, controlled(changes, *range(1, _CONTROLS + 1)), thinking, _CONTROLS
            )
            about = {
                "changed": _arrows(board, after),
                "differ": cells_that_differ(board, before, after)[0].tolist(),
                "controls": cells_that_differ(board, before, random).tolist(),
            }
    came = arrows_of_what_came(recording, moment.step)
    return answer(
        {
            "layer": layer,
            "layers": layers,
            "scores": scores,
            "size": list(board.shape),
            "looks": _arrows(board, before),
            "preferences": array(before.preferences[0]),
            "came": came,
            **about,
        }
    )


def _layer(loaded: Loaded, wanted: str) -> tuple[str, list[str]]:
    """The layer to read: by default where films read, or else the last one that is probed; and which there are."""
    layers = list(dict.fromkeys(point.layer for _, point, _ in load_probes(loaded)))
    usual = best_point(loaded.agent).layer
    return wanted or (usual if usual in layers else layers[-1]), layers


def _arrows(board: NDArray[np.uint8], plans: Plans) -> list[list[dict[str, Any]]]:
    """By look and tick, of each concept."""
    looks, ticks = plans.probabilities[CONCEPTS[0]].shape[1:3]
    return [
        [
            {concept: arrows(board, plans.probabilities[concept][0, look, tick]) for concept in CONCEPTS}
            for tick in range(ticks)
        ]
        for look in range(looks)
    ]
