"""Tables of games: object to bytes of RAM, and what else is read there.

Which byte holds what is, where it is in both, as AtariARI (Anand et al. 2019, arXiv 1906.08226) and OCAtari (Delfosse
et al. 2024, arXiv 2306.08649) say. The tests check every object against what is drawn on the screen, and every
`controllable` by playing on from a restored state with each action; `make ocatari` compares positions with OCAtari's.
"""

from collections.abc import Callable

from rl_interp.core.envs.atari.tables import Byte, Game, Object, Ram, decimal, number, yes_or_no

PONG = Game(
    objects={
        "player": Object("the player's paddle, on the right", 141.5, Byte(51, -5.5)),
        "enemy": Object("the enemy's paddle, on the left", 17.5, Byte(50, -7.5)),
        "ball": Object("the ball", Byte(49, -48.5), Byte(54, -12.5), present=lambda ram: _in_play(ram)),
    },
    readings={
        "ball_approaching": yes_or_no(
            "the ball flies to the player's side", lambda ram: _in_play(ram) and ram[58] > 127
        ),
        "ball_falling": yes_or_no("the ball flies downwards", lambda ram: _in_play(ram) and ram[56] < 128),
        "ball_below_player": yes_or_no(
            "the ball's centre is below that of the player's paddle",
            lambda ram: _in_play(ram) and ram[54] - 7 > ram[51],
        ),
        "player_score": number("the player's points", lambda ram: ram[14]),
        "enemy_score": number("the enemy's points", lambda ram: ram[13]),
    },
    listening="the paddle always moves",
    listens=lambda ram, frames: True,
)


def _in_play(ram: Ram) -> bool:
    return ram[54] > 0 and ram[49] > 0


BREAKOUT = Game(
    objects={
        "player": Object("the paddle, as wide as it is at first", Byte(72, -39.5), 190.5),
        "ball": Object("the ball", Byte(99, -48.5), Byte(101, 10.5), present=lambda ram: _ball_is_there(ram)),
    },
    readings={
        "ball_falling": yes_or_no("the ball flies downwards", lambda ram: _ball_is_there(ram) and 0 < ram[103] < 128),
        "ball_right_of_player": yes_or_no(
            "the ball's centre is right of the paddle's", lambda ram: _ball_is_there(ram) and ram[99] - 9 > ram[72]
        ),
        "bricks": number("bricks left in the wall, 108 at first", lambda ram: _bits(ram[:36]) // 2 - 12),
        "lives": number("balls left, this one included", lambda ram: ram[57]),
        "score": number("the score on the screen", lambda ram: decimal(ram[76], ram[77])),
    },
    listening="the paddle always moves",
    listens=lambda ram, frames: True,
)


def _ball_is_there(ram: Ram) -> bool:
    """It has been served and is not below the screen."""
    return 0 < ram[101] < 187


def _bits(part: Ram) -> int:
    return sum(byte.bit_count() for byte in part)


FREEWAY = Game(
    objects={"player": Object("the player's chicken", 46.5, Byte(14, 196.5, scale=-1))}
    | {
        f"car_{lane}": Object(f"the car in lane {lane} from the top", Byte(118 - lane, 0.5), 15.5 + 16 * lane)
        for lane in range(1, 11)
    },
    readings={
        "hit": yes_or_no("a car has hit the chicken, which is thrown back", lambda ram: ram[106] & 192 == 64),
        "crossed": yes_or_no("the chicken has just crossed, and waits to set out again", lambda ram: ram[106] >= 128),
        "score": number("crossings", lambda ram: decimal(ram[103])),
    },
    listening="the chicken was neither hit nor has it crossed just now",
    # Its lowest six bits count what is left of a pause, down by one in every other frame; RAM 1 counts frames.
    listens=lambda ram, frames: ram[106] == 0 or frames > 2 * (ram[106] & 63) - ram[1] % 2,
)

SPACE_INVADERS = Game(
    objects={
        "player": Object("the player's cannon", Byte(28, 2.0), 189.5, present=lambda ram: ram[42] != 1),
        "ship": Object("the command ship", Byte(30, 2.0), 15.5, present=lambda ram: 0 < ram[30] < 180),
        "player_shot": Object(
            "the player's shot", Byte(87, -2.0), Byte(85, 7.5, scale=2), present=lambda ram: ram[85] < 100
        ),
    },
    readings={
        "exploding": yes_or_no("the cannon was hit, and explodes", lambda ram: ram[42] == 4),
        "invaders": number("invaders left, 36 at first", lambda ram: _bits(ram[18:24])),
        "invaders_x": number("the left edge of the whole formation, px", lambda ram: ram[26] - 1),
        "invaders_y": number("the top edge of the whole formation, px", lambda ram: 2 * ram[16] + 31),
        "lives": number("cannons left, this one included", lambda ram: ram[73]),
        "score": number("the score on the screen", lambda ram: decimal(ram[102], ram[104])),
    },
    listening="the cannon is there, and neither shot nor about to appear",
    # With RAM 42 at 1 a cannon is about to appear, when RAM 74 has counted down to 0, frame by frame.
    listens=lambda ram, frames: ram[42] == 0 or (ram[42] == 1 and ram[74] < frames),
)


def _submarines(ram: Ram, row: int) -> bool:
    """Whether the enemies in one of Seaquest's four lanes, 0 the lowest, are submarines; else they are sharks."""
    return 3 < ram[89 + row] % 8 < 7


def _enemy(row: int, slot: int) -> Object:
    """One of up to three enemies, 16 pixels apart, of a lane; bits of RAM 36 and on say which are there."""
    return Object(
        f"the enemy in slot {slot + 1}, from the left, of lane {4 - row} from the top",
        lambda ram: (ram[30 + row] + 16 * slot) % 256 + 3.5,
        lambda ram: (146 if _submarines(ram, row) else 140 + ram[93]) - 24 * row,  # sharks float up and down
        present=lambda ram: ram[36 + row] >> (2 - slot) & 1 == 1 and (ram[30 + row] + 16 * slot) % 256 < 160,
    )


def _swims(row: int) -> Callable[[Ram], bool]:
    """Whether what a lane's other byte tells of is a diver; where the enemies are submarines, it is their missile."""
    return lambda ram: 0 < ram[71 + row] < 160 and not _submarines(ram, row)


SEAQUEST = Game(
    objects={"player": Object("the player's submarine", Byte(70, 7.5), Byte(97, 38.0), lambda ram: ram[105] == 0)}
    | {f"enemy_{4 - row}_{slot + 1}": _enemy(row, slot) for row in range(4) for slot in range(3)}
    | {
        f"diver_{4 - row}": Object(
            f"the diver in lane {4 - row} from the top", Byte(71 + row, 3.5), 145.5 - 24 * row, present=_swims(row)
        )
        for row in range(4)
    },
    readings={
        "facing_left": yes_or_no("the player's submarine faces left", lambda ram: ram[86] == 8),
        "at_surface": yes_or_no("the player's submarine is at the surface", lambda ram: ram[97] == 13),
        "oxygen": number("oxygen left, 64 when full", lambda ram: ram[102]),
        "oxygen_low": yes_or_no("less than a quarter of the oxygen is left", lambda ram: ram[102] < 16),
        "divers": number("divers on board, 6 at most", lambda ram: ram[62]),
        "lives": number("submarines left, besides this one", lambda ram: ram[59]),
        "score": number("the score on the screen", lambda ram: decimal(ram[56], ram[57], ram[58])),
    },
    listening="the player's submarine neither sinks nor takes in oxygen at the surface",
    # RAM 104 is 1 while oxygen is taken in, one more in every other frame, up to 64; RAM 105 counts while it sinks.
    listens=lambda ram, frames: ram[105] == 0 and (ram[104] == 0 or frames > 2 * (64 - ram[102])),
)

CUBES = (
    *(21, 52, 54, 83, 85, 87, 98, 100, 102, 104),
    *(1, 3, 5, 7, 9, 32, 34, 36, 38, 40, 42),
)
"""RAM of Q*bert's cubes' colours, row by row from the top."""

QBERT = Game(
    objects={
        "player": Object(
            "Q*bert, standing or hopping", Byte(43, 0.5), Byte(67, 3.0), lambda ram: 16 < ram[67] < 220 and ram[59] == 0
        )
    },
    readings={
        "standing": yes_or_no("Q*bert stands on a cube", lambda ram: _stands(ram)),
        "lost": yes_or_no("Q*bert was caught or fell, and a new life has not begun", lambda ram: ram[59] == 255),
        "left_disk": yes_or_no("the disk on the left is there", lambda ram: ram[112] > 0),
        "right_disk": yes_or_no("the disk on the right is there", lambda ram: ram[122] > 0),
        "lives": number("lives left, this one included", lambda ram: (ram[8] + 2) % 256),
        "score": number("the score on the screen", lambda ram: decimal(ram[89], ram[90], ram[91])),
    },
    listening="Q*bert stands on a cube, and the stick is read while the action is held",
    # It is read once in five frames, which RAM 0 counts: in the one that makes it 4.
    listens=lambda ram, frames: _stands(ram) and frames >= ((4 - ram[0]) % 5 or 5),
)


def _stands(ram: Ram) -> bool:
    return ram[126] in (25, 171) and ram[67] > 0


GAMES = {
    "pong": PONG,
    "breakout": BREAKOUT,
    "freeway": FREEWAY,
    "space_invaders": SPACE_INVADERS,
    "seaquest": SEAQUEST,
    "qbert": QBERT,
}
"""ROM to its table."""
