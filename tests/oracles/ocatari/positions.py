"""OCAtari's objects, from recorded RAM and from recorded screens; needs ocatari alone (see `requirements.txt`).

    python positions.py recorded.npz objects.json

For each game of the recording, `objects.json` holds, for each state and each of OCAtari's two extractions (`ram`,
`vision`), the category and the centre of every object.
"""

import json
import sys

import numpy as np
from ocatari.ram.extract_ram_info import detect_objects_ram, init_objects
from ocatari.vision.extract_vision_info import detect_objects_vision

UNSEEN = ("Qbert",)
"""Games whose screen OCAtari 2.2.1 does not read: it raises a TypeError."""


def centres(objects) -> list[tuple[str, float, float]]:
    """Category and centre, px, of what is there; a pixel's centre is its index."""
    there = [each for each in objects if each and getattr(each, "visible", True)]
    return [
        (each.category, float(each.x) + (float(each.w) - 1) / 2, float(each.y) + (float(each.h) - 1) / 2)
        for each in there
    ]


def main() -> None:
    recorded, found = np.load(sys.argv[1]), {}
    for game in sorted({name.split("/")[0] for name in recorded}):
        seen = init_objects(game, hud=False)
        looked = None if game in UNSEEN else init_objects(game, hud=False, vision=True)
        found[game] = {"ram": [], "vision": []}
        for ram, screen in zip(recorded[f"{game}/ram"], recorded[f"{game}/screen"], strict=True):
            # As Python's integers: a byte of NumPy's wraps around where OCAtari subtracts from it.
            detect_objects_ram(seen, ram.astype(int), game, False)
            found[game]["ram"].append(centres(seen))
            if looked is not None:
                detect_objects_vision(looked, screen, game, False)
                found[game]["vision"].append(centres(looked))
    with open(sys.argv[2], "w") as file:
        json.dump(found, file)


main()
