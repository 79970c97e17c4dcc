"""Answers of the editors."""

from dataclasses import asdict

import numpy as np
from starlette.responses import Response

from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes import editing, parse_changes
from rl_interp.analysis.mazes.fields import vector_field
from rl_interp.app.explorer.asked import Asked
from rl_interp.app.explorer.wire import answer, array, png
from rl_interp.core.envs.maze import MazeConfig
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.text import maze_from_text, maze_text
from rl_interp.core.errors import UserError


def state(asked: Asked) -> Response:
    """What can be edited in the state of a moment."""
    return answer(asdict(editing(asked.recording(), asked.number("step"))))


def maze(asked: Asked) -> Response:
    """The maze as it stands in a moment, as a text."""
    recording, moment = asked.recording(), asked.moment()
    env = maze_config(recording.loaded)
    start = maze_from_text(recording.recipe.maze) if recording.recipe.maze else Mazes.draw(env, [recording.recipe.seed])
    mouse = [int(moment.labels["row"]), int(moment.labels["column"])]
    return answer({"maze": maze_text(start.edit(mouse=mouse))})


def field(asked: Asked) -> Response:
    """What an agent would do from every free cell of a maze, as it is and under changes."""
    found, there = asked.opened(), maze_from_text(asked.text("maze"))
    maze_config(found.loaded)
    shown = {"png": png(there.picture()), "corner": there.corner[0].tolist(), "decision": there.decision[0].tolist()}
    with found.agent(asked.wanted) as loaded:
        made = parse_changes(asked.texts("changes"), loaded, found.sae, asked.text("maze"), asked.number("seed"))
        before = vector_field(loaded.agent, there)
        after = vector_field(loaded.agent, there, made) if made else before
    return answer(
        {
            **shown,
            "cells": array(before.cells.astype(np.float32)),
            "before": array(before.arrows),
            "after": array(after.arrows),
            "values": array(after.values),
        }
    )


def maze_config(loaded: Loaded) -> MazeConfig:
    if not isinstance(loaded.env, MazeConfig):
        raise UserError(f"{loaded.run.path} is an agent in {loaded.env.id}, which has no mazes.")
    return loaded.env
