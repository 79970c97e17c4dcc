"""Positions from our tables beside OCAtari's, object by object.

    python compare.py record recorded.npz [steps]
    python compare.py compare recorded.npz objects.json

The first plays each game at random and records RAM and screens; OCAtari's environment then runs `positions.py`; the
second prints, for each kind of object, the share of our positions that have one of OCAtari's, of the same category,
within 2 pixels in x and 8 in y: OCAtari cuts off what is out of view, as Pong's paddles are at the edges.
"""

import json
import sys

import numpy as np

from rl_interp.core.envs import AtariConfig
from rl_interp.core.envs.atari.config import rom_name
from rl_interp.core.envs.atari.games import GAMES
from rl_interp.core.envs.atari.labelled import AtariLabelled
from rl_interp.core.tables import markdown

CATEGORIES = {
    "Pong": {"player": ["Player"], "enemy": ["Enemy"], "ball": ["Ball"]},
    "Breakout": {"player": ["Player"], "ball": ["Ball"]},
    "Freeway": {"player": ["Chicken"], "car": ["Car"]},
    "SpaceInvaders": {"player": ["Player"], "ship": ["Satellite"], "player_shot": ["Bullet"]},
    "Seaquest": {"player": ["Player"], "enemy": ["Shark", "Submarine"], "diver": ["Diver"]},
    "Qbert": {"player": ["Player"]},
}


def record(path: str, steps: int) -> None:
    arrays = {}
    for game in CATEGORIES:
        env = AtariLabelled(AtariConfig(f"ALE/{game}-v5", sticky_actions=0.0, noop_max=0))
        rng = np.random.default_rng(0)
        env.reset(seed=3)
        rams, screens = [], []
        for step in range(steps):
            if step % 6 == 0:
                action = int(rng.integers(len(env.action_names)))
            if env.step(1 if game == "Breakout" and step % 3 == 0 else action)[2]:
                env.reset()
            rams.append(env._ale.getRAM())
            screens.append(env._ale.getScreenRGB())
        arrays[f"{game}/ram"], arrays[f"{game}/screen"] = np.array(rams), np.array(screens)
    np.savez_compressed(path, **arrays)


def compare(recorded: str, objects: str) -> None:
    rows = []
    with open(objects) as file, np.load(recorded) as arrays:
        found = json.load(file)
        for game, categories in CATEGORIES.items():
            table = GAMES[rom_name(f"ALE/{game}-v5")].objects
            for kind, theirs in categories.items():
                ours = [thing for name, thing in table.items() if name.rstrip("_0123456789") == kind]
                agree = {"ram": [], "vision": []}
                for state, ram in enumerate(arrays[f"{game}/ram"].tolist()):
                    centres = [centre for thing in ours if (centre := thing.centre(ram))]
                    for way, agreed in agree.items():
                        if not found[game][way]:
                            continue
                        there = [(x, y) for category, x, y in found[game][way][state] if category in theirs]
                        agreed += [any(abs(x - a) <= 2 and abs(y - b) <= 8 for a, b in there) for x, y in centres]
                shares = [f"{np.mean(each):.3f}" if each else "" for each in agree.values()]
                rows.append([game, kind, str(len(agree["ram"])), *shares])
    print(markdown(["game", "object", "positions", "OCAtari, from RAM", "OCAtari, from the screen"], rows))


if __name__ == "__main__":
    if sys.argv[1] == "record":
        record(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 2000)
    else:
        compare(sys.argv[2], sys.argv[3])
