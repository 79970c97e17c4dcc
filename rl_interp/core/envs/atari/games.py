"""Tables of games: object to bytes of RAM, and what else is read there.

Which byte holds what is, where it is in both, as AtariARI (Anand et al. 2019, arXiv 1906.08226) and OCAtari (Delfosse
et al. 2024, arXiv 2306.08649) say. The tests check every object against what is drawn on the screen, and every
`controllable` by playing on from a restored state with each action; `make ocatari` compares positions with OCAtari's.
"""

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
    listening="always, also while there is no ball: the paddle moves",
    listens=lambda ram, frames: True,
)


def _in_play(ram: Ram) -> bool:
    return ram[54] > 0 and ram[49] > 0


BREAKOUT = Game(
    objects={
        "player": Object("the paddle", Byte(72, -39.5), 190.5),
        "ball": Object("the ball", Byte(99, -48.5), Byte(101, 10.5), present=lambda ram: ram[101] > 0),
    },
    readings={
        "ball_falling": yes_or_no("the ball flies downwards", lambda ram: ram[101] > 0 and 0 < ram[103] < 128),
        "ball_right_of_player": yes_or_no(
            "the ball's centre is right of the paddle's", lambda ram: ram[101] > 0 and ram[99] - 9 > ram[72]
        ),
        "bricks": number("bricks left in the wall, 108 at first", lambda ram: _bits(ram[:36]) // 2 - 12),
        "lives": number("balls left, this one included", lambda ram: ram[57]),
        "score": number("the score on the screen", lambda ram: decimal(ram[76], ram[77])),
    },
    listening="always",
    listens=lambda ram, frames: True,
)


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

GAMES = {"pong": PONG, "breakout": BREAKOUT, "freeway": FREEWAY}
"""ROM to its table."""
