"""Crafter behind the vector convention, beside the package itself."""

import copy
import os
import signal
from functools import partial
from types import SimpleNamespace

import crafter
import numpy as np
import pytest
from crafter import engine, objects, worldgen

from rl_interp.core.envs import CrafterConfig, env_config, make_labelled, make_vector
from rl_interp.core.envs.crafter.config import ACHIEVEMENTS, crafter_score
from rl_interp.core.envs.crafter.game import CrafterGame, make_games
from rl_interp.core.envs.games import GameVector
from rl_interp.core.envs.workers import WorkerError, WorkerVector

CONFIG = CrafterConfig()
games = partial(make_games, CONFIG)


def of_the_package(seed):
    """The package's own world of a seed: materials, and what stands where."""
    world = engine.World((64, 64), crafter.constants.materials, (12, 12))
    world.reset(seed=seed)
    player = objects.Player(world, (32, 32))
    world.add(player)
    worldgen.generate_world(world, player)
    return world


@pytest.mark.parametrize("seed", [0, 1])
def test_worlds_are_the_packages(seed):
    game = CrafterGame(CONFIG)
    game.reset(seed)
    ours, theirs = game.env._world, of_the_package(seed)
    np.testing.assert_array_equal(ours._mat_map, theirs._mat_map)
    assert [(type(o).__name__.strip("_"), tuple(o.pos)) for o in ours.objects] == [
        (type(o).__name__, tuple(o.pos)) for o in theirs.objects
    ]
    assert ours.random.randint(2**30) == theirs.random.randint(2**30), "as many draws were made"


def test_frames_are_the_packages_to_the_last_bit_by_day_by_night_and_asleep():
    game, rng, out = CrafterGame(CONFIG), np.random.default_rng(0), np.empty((3, 64, 64), np.uint8)
    game.reset(3)
    game.env._local_view._world = game.env._world
    kinds = set()
    for step in range(280):
        if game.step(int(rng.choice([1, 2, 3, 4, 5, 6])))[1]:
            game.reset(step)
        game.env._player.inventory["health"] = 9
        if step % 5:
            continue
        world, player = game.env._world, game.env._player
        noise = np.random.default_rng((game.seed, game.env._step)).uniform(32, 127, (63, 49))
        generator, world.random = world.random, SimpleNamespace(uniform=lambda *_, noise=noise: noise)
        theirs = crafter.Env.render(game.env)
        world.random = generator
        game.observe(out)
        np.testing.assert_array_equal(out.transpose(1, 2, 0), theirs)
        kinds.add((world.daylight < 0.5, player.sleeping))
    assert {(False, False), (True, False), (False, True)} <= kinds or len(kinds) == 4


def play(env, seed, steps):
    rng, trace = np.random.default_rng(7), [env.reset(seed)]
    rewards = []
    for _ in range(steps):
        env.send(rng.integers(17, size=env.num_envs))
        step = env.recv()
        trace.append(step.obs)
        rewards.append(step.reward)
    return np.stack(trace), np.stack(rewards)


def test_a_seed_gives_the_same_episodes_whatever_was_in_memory_before():
    first = play(GameVector(CONFIG, games(2)), 5, 150)
    litter = [CrafterGame(CONFIG) for _ in range(3)]  # the package's order of creatures is that of addresses
    again = play(GameVector(CONFIG, games(2)), 5, 150)
    assert litter
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_looking_moves_nobody():
    seen, unseen = CrafterGame(CONFIG), CrafterGame(CONFIG)
    seen.reset(1)
    unseen.reset(1)
    out = np.empty((3, 64, 64), np.uint8)
    for action in np.random.default_rng(0).integers(1, 6, size=250):  # into the night
        seen.step(int(action))
        unseen.step(int(action))
        seen.observe(out)
        seen.observe(out)
    positions = [[tuple(o.pos) for o in game.env._world.objects] for game in (seen, unseen)]
    assert positions[0] == positions[1]


def test_worker_processes_play_the_same_episodes_and_one_that_dies_is_named():
    here = play(GameVector(CONFIG, games(4)), 2, 40)
    env = WorkerVector(CONFIG, games, 4, workers=2)
    try:
        there = play(env, 2, 40)
        np.testing.assert_array_equal(here[0], there[0])
        np.testing.assert_array_equal(here[1], there[1])
        os.kill(env._processes[1].pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"worker 1 with environments 2 to 3 died \(exit code -9\)"):
            for _ in range(3):
                env.send(np.zeros(4, np.int64))
                env.recv()
    finally:
        env.close()


@pytest.mark.full
def test_a_worker_that_hangs_is_named(monkeypatch):
    monkeypatch.setattr("rl_interp.core.envs.workers.TIMEOUT", 0.5)
    env = WorkerVector(CONFIG, games, 4, workers=2)
    try:
        with pytest.raises(WorkerError, match="has not answered"):
            os.kill(env._processes[0].pid, signal.SIGSTOP)
            env.reset(0)
    finally:
        os.kill(env._processes[0].pid, signal.SIGCONT)
        env.close()


def test_the_labelled_environment_sees_what_the_vector_one_sees():
    from rl_interp.core.envs.seeds import episode_seed

    vector, single = make_vector(CONFIG, 1), make_labelled(CONFIG)
    many = vector.reset(3)
    one, info = single.reset(seed=episode_seed(3, 0, 0))
    for action in np.random.default_rng(0).integers(17, size=60):
        np.testing.assert_array_equal(many[0], one)
        assert set(info["labels"]) == set(single.concepts)
        vector.send(np.array([action]))
        many = vector.recv().obs
        one, _, terminated, truncated, info = single.step(action)
        if terminated or truncated:
            break


def test_labels_tell_what_is_so():
    single = make_labelled(CONFIG)
    single.reset(seed=0)
    world, player = single.game.env._world, single.game.env._player
    x, y = player.pos
    world._mat_map[x - 5 : x + 6, y - 5 : y + 6] = world._mat_ids["grass"]
    world._mat_map[x + 4, y] = world._mat_ids["tree"]  # at the view's edge
    world._mat_map[x, y + 1] = world._mat_ids["water"]  # faced
    player.inventory["wood"] = 4
    labels = single.labels()
    assert (labels["tree_seen"], labels["water_seen"], labels["water_ahead"], labels["lava_seen"]) == (1, 1, 1, 0)
    assert labels["wood"] == 4
    world._mat_map[x + 4, y] = world._mat_ids["grass"]
    world._mat_map[x + 5, y] = world._mat_ids["tree"]
    assert single.labels()["tree_seen"] == 0


def after(env, action: int) -> tuple:
    """What an action makes of a world: the map, who stands where, and the player."""
    env = copy.deepcopy(env)
    env.step(action)
    player = env._player
    return (
        env._world._mat_map.tobytes(), env._world._obj_map.tobytes(), tuple(player.facing), player.sleeping,
        tuple(player.inventory.items()), tuple(player.achievements.items()),
    )  # fmt: skip


def test_controllable_is_when_actions_make_a_difference_awake_asleep_and_waking():
    """By playing on with every action from each state of a nap, which ends rested, and of one that a blow ends."""
    single, kinds = make_labelled(CONFIG), set()
    names = list(single.action_names)
    for hurt in (None, 45):
        single.reset(seed=4)
        env = single.game.env
        for step in range(60):
            labels = single.labels()
            if step >= 30:
                truth = len({after(env, action) for action in (0, 1, 2, 6)}) > 1
                assert labels["controllable"] == truth
                kinds.add((labels["sleeping"], labels["controllable"]))
            if step == hurt:
                env._player.health -= 1
            single.step(names.index("sleep" if step == 33 else "noop"))
    assert kinds == {(0, 1), (1, 0), (1, 1)}


def test_actions_do_what_they_are_called():
    single = make_labelled(CONFIG)
    names = list(single.action_names)
    ways = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    goods = {"wood": 8, "stone": 8, "coal": 8, "iron": 8, "sapling": 8}
    for name in names:
        single.reset(seed=0)
        world, player = single.game.env._world, single.game.env._player
        for thing in list(world.objects):
            if thing is not player:
                world.remove(thing)
        x, y = player.pos
        world._mat_map[x - 4 : x + 5, y - 4 : y + 5] = world._mat_ids["grass"]
        for place in ("table", "furnace"):
            world._mat_map[x - 1, y - (place == "table")] = world._mat_ids[place] if name.startswith("make") else 2
        if name == "do":
            world._mat_map[x, y + 1] = world._mat_ids["tree"]
        player.inventory.update(goods, energy=5)
        before = dict(player.inventory)
        single.step(names.index(name))
        what, _, of = name.partition("_")
        moved = tuple(int(each) for each in player.pos - (x, y))
        assert moved == (ways[of] if what == "move" else (0, 0))
        assert player.sleeping == (name == "sleep")
        assert tuple(player.facing) == (ways[of] if what == "move" else (0, 1))
        assert (player.inventory["wood"] == before["wood"] + 1) == (name == "do")
        if what == "make":
            assert player.inventory[of] == 1
        ahead, thing = world[x, y + 1]
        placed = {"plant": type(thing).__name__ == "Plant"}.get(of, ahead == of)
        assert placed == (what == "place")


def test_what_is_ahead_is_what_the_player_meets():
    single = make_labelled(CONFIG)
    names = list(single.action_names)
    creatures = {
        "cow": objects.Cow, "zombie": lambda *at: objects.Zombie(*at, player), "plant": objects.Plant,
        "skeleton": lambda *at: objects.Skeleton(*at, player),
    }  # fmt: skip
    for name in (*crafter.constants.materials, *creatures):
        single.reset(seed=0)
        world, player = single.game.env._world, single.game.env._player
        for thing in list(world.objects):
            if thing is not player:
                world.remove(thing)
        ahead = player.pos + np.array([0, 1])
        world[ahead] = "grass" if name in creatures else name
        if name in creatures:
            world.add(met := creatures[name](world, tuple(ahead)))
        known, place = single.labels(), tuple(player.pos)
        assert [each for each in known if each.endswith("_ahead") and known[each]] == [f"{name}_ahead"]
        assert known[f"{name}_seen"]
        assert known["enemy_near"] == (name in ("zombie", "skeleton"))
        single.step(names.index("move_down"))
        walked = tuple(player.pos) != place
        assert walked == (name in (*crafter.constants.walkable, "lava"))
        assert (player.health == 0) == (name == "lava")
        if name in ("cow", "zombie", "skeleton") and tuple(met.pos) == tuple(ahead):
            before = met.health
            player.facing = (0, 1)
            single.game.env._player.action = "do"
            player.update()
            assert met.health < before


def test_cells_are_those_of_the_view():
    single = make_labelled(env_config("CrafterReward-v1"))
    single.reset(seed=3)
    world, player = single.game.env._world, single.game.env._player
    x, y = player.pos
    world[x + 4, y - 3] = "diamond"
    world[x - 2, y + 1] = "grass"
    world.add(objects.Cow(world, (x - 2, y + 1)))
    cells = {name: (classes, names) for name, (classes, names) in single.cells().items()}
    material, names = cells["material"]
    assert material.shape == (7, 9)
    assert names[material[0, 8]] == "diamond"
    thing, names = cells["thing"]
    assert names[thing[4, 2]] == "cow"
    assert names[thing[3, 4]] == "player"


def test_an_episode_that_is_cut_off_is_truncated_and_a_death_is_not():
    game = CrafterGame(CrafterConfig(length=5))
    game.reset(0)
    assert [game.step(0)[1:] for _ in range(5)][-1] == (False, True)
    game.reset(0)
    game.env._player.health = 0
    assert game.step(0)[1:] == (True, False)


def test_the_score_is_the_papers_formula():
    rates = np.linspace(0, 1, 22)
    assert crafter_score(rates) == pytest.approx(np.exp(np.mean(np.log(1 + 100 * rates))) - 1)
    assert crafter_score(np.zeros(22)) == 0
    assert crafter_score(np.ones(22)) == pytest.approx(100)
    done = np.zeros((4, 22), bool)
    done[:2, 0] = True
    summary = CONFIG.summary(np.zeros(4), {"achievements": done})
    assert summary["achievements"][ACHIEVEMENTS[0]] == 0.5
    assert tuple(crafter.constants.achievements) == ACHIEVEMENTS


def test_the_noreward_variant_pays_nothing():
    env = make_vector(env_config("CrafterNoReward-v1"), 1)
    assert not play(env, 0, 30)[1].any()
