"""Crafter's worlds, cell for cell and draw for draw those of the package, from noise computed in compiled passes."""

from typing import Any

import numpy as np
import opensimplex
from crafter import constants, objects
from numpy.typing import NDArray
from opensimplex.internals import _noise3

from rl_interp.core.compiled import compiled


def generate_world(world: Any, player: Any) -> None:
    """Fill an empty `crafter.engine.World`, as `crafter.worldgen.generate_world` does."""
    simplex = opensimplex.OpenSimplex(seed=world.random.randint(0, 2**31 - 1))
    xs, ys = np.arange(world.area[0]), np.arange(world.area[1])
    distance = np.sqrt((xs[:, None] - player.pos[0]) ** 2 + (ys[None] - player.pos[1]) ** 2)
    tunnels = _set_materials(world, simplex, xs, ys, distance)
    _set_objects(world, player, distance, tunnels)


def _set_materials(world: Any, simplex: Any, xs: NDArray, ys: NDArray, distance: NDArray) -> NDArray[np.bool_]:
    def noise(z: int, size: float, x: NDArray = xs, y: NDArray = ys) -> NDArray[np.float64]:
        return _noise(simplex._perm, simplex._perm_grad_index3, x / size, y / size, float(z))

    start = 4 - distance + 2 * noise(8, 3)
    start = 1 / (1 + np.exp(-start))
    water = noise(3, 15) + 0.15 * noise(3, 5) + 0.1 - 2 * start
    mountain = (noise(0, 15) + 0.3 * noise(0, 5)) / 1.3 - (4 * start + 0.3 * water)
    cave = (noise(6, 7) > 0.15) & (mountain > 0.3)
    across, along = noise(7, 3, 2 * xs, ys / 5) > 0.4, noise(7, 3, xs / 5, 2 * ys) > 0.4
    coal, iron, lava = noise(1, 8) > 0, noise(2, 6) > 0.4, (mountain > 0.3) & (noise(6, 5) > 0.35)
    sand = (water > 0.25) & (water <= 0.35) & (noise(4, 9) > -0.2)
    wood = noise(5, 7) > 0
    names = ["grass", "path", "lava", "stone", "sand", "water"]
    decided = np.select(
        [start > 0.5, mountain > 0.15, sand, water > 0.3],
        [0, np.select([cave | across | along, lava], [1, 2], 3), 4, 5],
        0,
    )
    codes = np.array([world._mat_ids[name] for name in names], np.uint8)
    world._mat_map[:] = codes[decided]
    # What is left to chance, cell by cell in the package's order: a draw is made only where it counts.
    uniform, put = world.random.uniform, world._mat_map
    rock = (start <= 0.5) & (mountain > 0.15) & ~(cave | across | along)
    meadow = (start <= 0.5) & (mountain <= 0.15) & ~sand & ~(water > 0.3) & wood
    ids = world._mat_ids
    for x, y in np.argwhere((rock & (coal | iron | (mountain > 0.18))) | meadow).tolist():
        if meadow[x, y]:
            if uniform() > 0.8:
                put[x, y] = ids["tree"]
        elif coal[x, y] and uniform() > 0.85:
            put[x, y] = ids["coal"]
        elif iron[x, y] and uniform() > 0.75:
            put[x, y] = ids["iron"]
        elif mountain[x, y] > 0.18 and uniform() > 0.994:
            put[x, y] = ids["diamond"]
    return (start <= 0.5) & (mountain > 0.15) & ~cave & (across | along)


def _set_objects(world: Any, player: Any, distance: NDArray, tunnels: NDArray[np.bool_]) -> None:
    uniform, ids = world.random.uniform, world._mat_ids
    grass, path = world._mat_map == ids["grass"], world._mat_map == ids["path"]
    walkable = np.isin(world._mat_map, [ids[name] for name in constants.walkable])  # pyright: ignore[reportAttributeAccessIssue]
    meadow, far, dark = (grass & (distance > 3)), distance > 10, path & tunnels
    for x, y in np.argwhere(walkable & (meadow | far | dark)).tolist():
        if meadow[x, y] and uniform() > 0.985:
            world.add(objects.Cow(world, (x, y)))
        elif far[x, y] and uniform() > 0.993:
            world.add(objects.Zombie(world, (x, y), player))
        elif dark[x, y] and uniform() > 0.95:
            world.add(objects.Skeleton(world, (x, y), player))


@compiled()
def _noise(perm: NDArray, gradients: NDArray, xs: NDArray, ys: NDArray, z: float) -> NDArray[np.float64]:
    out = np.empty((len(xs), len(ys)))
    for i in range(len(xs)):
        for j in range(len(ys)):
            out[i, j] = _noise3(xs[i], ys[j], z, perm, gradients)
    return out
