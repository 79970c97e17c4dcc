"""A* over pushes, compiled, for the fewest pushes or the fewest steps. For pushes, walks cost nothing: boards with the
same boxes, between whose places the player can walk, are one.

The estimate of what is left is the cheapest pairing of boxes with targets, by the pushes that each would need if it
were alone on the board, the player's side of it considered; it is never too large, and infinite where a box can't be
paired at all. A push is left out if it leaves a box off its target that nothing can move again.

Cells are numbered as in `floor.py`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled
from rl_interp.core.envs.sokoban.floor import FAR, Level, floor_of, level_of, moved
from rl_interp.core.envs.splitmix import mixed

FOUND, IMPOSSIBLE, GIVEN_UP = range(3)

_PAIRED_EXACTLY = 8
"""Up to so many boxes the cheapest pairing is found; of more, each takes its nearest target."""


class _Boards(NamedTuple):
    """Boards that have been looked at, or wait for it."""

    places: NDArray[np.int32]
    """`[boards, k]`: their boxes, in order."""
    came: NDArray[np.int32]
    """`[boards, 5]`: the player, the board before, pushes and steps up to here, and what tells boards apart."""
    heap: NDArray[np.int64]
    """`[boards, 2]`: those that wait, as a binary heap of keys and boards."""


class _Space(NamedTuple):
    """Arrays to work in."""

    occupied: NDArray[np.bool_]
    fixed: NDArray[np.bool_]
    steps_to: NDArray[np.int32]
    queue: NDArray[np.int32]
    paired: NDArray[np.int32]


@compiled()
def search(board: NDArray[np.uint8], most: int, by_steps: bool) -> tuple[int, NDArray[np.int64], int, int]:
    """Look at up to `most` boards for a solution with the fewest pushes, or the fewest steps.

    Returns:
        `FOUND`, `IMPOSSIBLE` or `GIVEN_UP`; the actions `[steps]`, their pushes, and how many boards were looked at.
    """
    beside, boxes, targets = floor_of(board)
    nothing = np.empty(0, np.int64)
    if _holds(boxes, -1) or _holds(targets, -1):  # where the player can't go
        return IMPOSSIBLE, nothing, 0, 0
    level, space, table = level_of(beside, targets), _space(len(beside), len(boxes)), np.full(4096, -1, np.int32)
    boards = _begun(boxes)
    waiting, count, looked = 1, 1, 0
    while waiting:
        at = boards.heap[0, 1]
        waiting -= 1
        _sink(boards.heap, waiting)
        _mark(space.occupied, boards.places[at], True)
        area = _walk(level.beside, space, boards.came[at, 0])
        boards.came[at, 4] = boards.came[at, 0] if by_steps else area
        if _keep(table, boards, at):
            looked += 1
            if _on_targets(boards.places[at], level.is_target):
                return FOUND, _actions(level.beside, space, boards, at), boards.came[at, 2], looked
            if looked > most:
                return GIVEN_UP, nothing, 0, looked
            if 2 * looked > len(table):
                table = _larger(table, boards)
            if count + 4 * len(boxes) > len(boards.places):
                boards = _grown(boards)
            more = _push(level, space, boards, at, waiting, count, by_steps)
            waiting, count = waiting + more, count + more
        _mark(space.occupied, boards.places[at], False)
    return IMPOSSIBLE, nothing, 0, looked


@compiled()
def _push(level: Level, space: _Space, boards: _Boards, at: int, waiting: int, count: int, by_steps: bool) -> int:
    """Add all boards that one push leads to from a board, but those that can't be solved; returns how many."""
    beside, came, new = level.beside, boards.came, 0
    for i in range(boards.places.shape[1]):
        box = boards.places[at, i]
        for turn in range(4):
            behind, to = beside[box, turn ^ 1], beside[box, turn]
            if space.occupied[to] or level.dead[to] or space.steps_to[behind] < 0:
                continue
            after = boards.places[count + new]
            moved(boards.places[at], i, to, after)
            if not level.is_target[to] and _stuck(level, after, space.fixed):
                continue
            left = _estimate(level, after, box, space.paired)
            if left >= FAR:
                continue
            pushes, steps = came[at, 2] + 1, came[at, 3] + space.steps_to[behind] + 1
            came[count + new, 0], came[count + new, 1] = box, at
            came[count + new, 2], came[count + new, 3] = pushes, steps
            key = _key(steps, left, pushes) if by_steps else _key(pushes, left, steps)
            _rise(boards.heap, waiting + new, key, count + new)
            new += 1
    return new


@compiled()
def _space(cells: int, boxes: int) -> _Space:
    occupied, fixed = np.zeros(cells, np.bool_), np.zeros(cells, np.bool_)
    occupied[cells - 1] = fixed[cells - 1] = True
    return _Space(
        occupied,
        fixed,
        np.empty(cells, np.int32),
        np.empty(cells, np.int32),
        np.zeros(1 << min(boxes, _PAIRED_EXACTLY), np.int32),
    )


@compiled()
def _begun(boxes: NDArray[np.int32]) -> _Boards:
    places, came, heap = (
        np.empty((1024, len(boxes)), np.int32),
        np.zeros((1024, 5), np.int32),
        np.zeros((1024, 2), np.int64),
    )
    for i in range(len(boxes)):
        places[0, i] = boxes[i]
    came[0, 1] = -1
    return _Boards(places, came, heap)


@compiled()
def _grown(boards: _Boards) -> _Boards:
    return _Boards(_twice(boards.places), _twice(boards.came), _twice(boards.heap))


@compiled()
def _key(cost: int, left: int, other: int) -> int:
    """What is looked at first: the least cost in all, as far as known; then what has the fewest pushes left; then what
    costs less otherwise."""
    return (np.int64(cost + left) << 42) + (np.int64(left) << 21) + np.int64(other)  # pyright: ignore


@compiled()
def _estimate(level: Level, boxes: NDArray[np.int32], player: int, paired: NDArray[np.int32]) -> int:
    """At least so many pushes are left; `paired` is used in between."""
    part, alone, k = level.part, level.alone, len(boxes)
    if k > _PAIRED_EXACTLY:
        total = np.int64(0)
        for box in boxes:
            least = FAR
            for t in range(k):
                least = min(least, alone[box, part[box, player], t])
            total += np.int64(least)
        return total  # pyright: ignore[reportReturnType]
    for taken in range(1, 1 << k):  # the first boxes, as many as targets are taken
        count = -1
        for t in range(k):
            count += taken >> t & 1
        best = FAR
        for t in range(k):
            if taken >> t & 1:
                cost = alone[boxes[count], part[boxes[count], player], t]
                best = min(best, paired[taken ^ (1 << t)] + cost)
        paired[taken] = best
    return np.int64(paired[(1 << k) - 1])  # pyright: ignore[reportReturnType]


@compiled()
def _stuck(level: Level, boxes: NDArray[np.int32], fixed: NDArray[np.bool_]) -> bool:
    """Whether boxes hold each other so that one off its target can never be moved; `fixed` is used in between."""
    beside, dead = level.beside, level.dead
    for box in boxes:
        fixed[box] = True
    changed = True
    while changed:
        changed = False
        for box in boxes:
            if not fixed[box]:
                continue
            for axis in (0, 2):
                one, other = beside[box, axis], beside[box, axis + 1]
                if not (fixed[one] or fixed[other] or (dead[one] and dead[other])):
                    fixed[box], changed = False, True
                    break
    stuck = False
    for box in boxes:
        if fixed[box] and not level.is_target[box]:
            stuck = True
        fixed[box] = False
    return stuck


@compiled()
def _walk(beside: NDArray[np.int32], space: _Space, player: int) -> int:
    """Write how far the player has to walk to each cell, -1 where it can't; returns the first cell that it can."""
    steps_to, queue = space.steps_to, space.queue
    steps_to[:] = -1
    steps_to[player], queue[0] = 0, player
    read, written, first = 0, 1, player
    while read < written:
        cell = queue[read]
        read += 1
        first = min(first, cell)
        for there in beside[cell]:
            if not space.occupied[there] and steps_to[there] < 0:
                steps_to[there] = steps_to[cell] + 1
                queue[written] = there
                written += 1
    return first


@compiled()
def _on_targets(boxes: NDArray[np.int32], is_target: NDArray[np.bool_]) -> bool:
    for box in boxes:  # noqa: SIM110 - compiled in a tenth of the time
        if not is_target[box]:
            return False
    return True


@compiled()
def _holds(cells: NDArray[np.int32], cell: int) -> bool:
    for each in cells:  # noqa: SIM110
        if each == cell:
            return True
    return False


@compiled()
def _mark(marks: NDArray[np.bool_], cells: NDArray[np.int32], value: bool) -> None:
    for cell in cells:
        marks[cell] = value


@compiled()
def _actions(beside: NDArray[np.int32], space: _Space, boards: _Boards, at: int) -> NDArray[np.int64]:
    """What leads to a board; found from its end to its beginning."""
    places, came, steps_to = boards.places, boards.came, space.steps_to
    out = np.empty(came[at, 3], np.int64)
    end = len(out)
    while came[at, 1] >= 0:
        before, box = came[at, 1], came[at, 0]
        push = 0
        for turn in range(4):  # the way in which there is a box now, and none was
            if _holds(places[at], beside[box, turn]) and not _holds(places[before], beside[box, turn]):
                push = turn
        _mark(space.occupied, places[at], False)
        _mark(space.occupied, places[before], True)
        _walk(beside, space, came[before, 0])
        cell = beside[box, push ^ 1]
        end -= 1
        out[end] = push
        while steps_to[cell] > 0:
            for turn in range(4):
                there = beside[cell, turn ^ 1]
                if steps_to[there] == steps_to[cell] - 1:
                    end -= 1
                    out[end], cell = turn, there
                    break
        at = before
    return out


@compiled()
def _keep(table: NDArray[np.int32], boards: _Boards, at: int) -> bool:
    """Whether no board like this is in the table yet; it then is."""
    places, came = boards.places, boards.came
    slot = _slot(table, boards, at)
    while table[slot] >= 0:
        other = table[slot]
        same = came[other, 4] == came[at, 4]
        for i in range(places.shape[1]):
            same &= places[other, i] == places[at, i]
        if same:
            return False
        slot = (slot + 1) & (len(table) - 1)
    table[slot] = at
    return True


@compiled()
def _slot(table: NDArray[np.int32], boards: _Boards, at: int) -> int:
    value = np.uint64(boards.came[at, 4])
    for box in boards.places[at]:
        value = mixed(value * np.uint64(0x100000001B3) ^ np.uint64(box))
    return np.int64(value & np.uint64(len(table) - 1))  # pyright: ignore[reportReturnType]


@compiled()
def _larger(table: NDArray[np.int32], boards: _Boards) -> NDArray[np.int32]:
    out = np.full(4 * len(table), -1, np.int32)
    for at in table:
        if at >= 0:
            _keep(out, boards, at)
    return out


@compiled()
def _twice(array: NDArray) -> NDArray:
    out = np.empty((2 * len(array), array.shape[1]), array.dtype)
    for i in range(len(array)):
        for j in range(array.shape[1]):
            out[i, j] = array[i, j]
    return out


@compiled()
def _rise(heap: NDArray[np.int64], i: int, key: int, value: int) -> None:
    """Put a key and its value, the i-th, into their place in a binary heap."""
    while i > 0 and heap[(i - 1) // 2, 0] > key:
        heap[i, 0], heap[i, 1] = heap[(i - 1) // 2, 0], heap[(i - 1) // 2, 1]
        i = (i - 1) // 2
    heap[i, 0], heap[i, 1] = key, value


@compiled()
def _sink(heap: NDArray[np.int64], size: int) -> None:
    """Put the last of a binary heap, at `size`, at its top, and there into its place."""
    key, value = heap[size, 0], heap[size, 1]
    i = 0
    while 2 * i + 1 < size:
        below = 2 * i + 1
        if below + 1 < size and heap[below + 1, 0] < heap[below, 0]:
            below += 1
        if heap[below, 0] >= key:
            break
        heap[i, 0], heap[i, 1] = heap[below, 0], heap[below, 1]
        i = below
    heap[i, 0], heap[i, 1] = key, value
