"""A checkpoint as the published package saves it, of a new agent of size `debug` for Crafter.

python checkpoint.py OUT.ckpt
"""

import sys
from pathlib import Path

from reference import embodied, make


def main(out: str) -> None:
    agent = make("image", "debug", 2, 4, side=64, actions=17)
    step = embodied.Counter()
    step.increment(1234)
    # Absolute, for the package takes the dot off a relative path that begins with one.
    checkpoint = embodied.Checkpoint(str(Path(out).resolve()), parallel=False)
    checkpoint.step, checkpoint.agent = step, agent
    checkpoint.save()


if __name__ == "__main__":
    main(sys.argv[1])
