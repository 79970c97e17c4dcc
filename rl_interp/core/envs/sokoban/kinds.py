"""What a cell of a board can be, and where actions lead."""

KINDS = ("wall", "floor", "target", "box on target", "box", "player", "player on target")
"""By number; a board is nothing else. The numbers are those of the package gym-sokoban."""
WALL, FLOOR, TARGET, BOX_ON_TARGET, A_BOX, PLAYER, PLAYER_ON_TARGET = range(len(KINDS))
SIGNS = "# .*$@+"
"""The same as text, as Sokoban's levels are passed around."""
COLOURS = (
    (0, 0, 0), (243, 248, 238), (254, 126, 125), (254, 95, 56), (142, 121, 56), (160, 212, 56), (219, 212, 56),
)  # fmt: skip
"""One pixel for each: the package's "tiny world", in which the published agents are trained."""
ACTIONS = ("up", "down", "left", "right")
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Where each action leads, as (rows down, columns right)."""
