"""Any Gymnasium environment: by id, by a function, wrapped, labelled."""

from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium
import pytest
from walk import MINE, Hashing

from rl_interp.core.collect import collect
from rl_interp.core.config import from_plain, to_plain
from rl_interp.core.envs import AtariConfig, EnvConfig, GymConfig, env_config, make_labelled, make_vector
from rl_interp.core.envs.gym.read import labelled_by
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.replay import revisit
from rl_interp.core.rollout import evaluate


def test_an_environment_of_ones_own_is_made_by_a_function_wrapped_and_labelled(mine):
    config = env_config(
        "mine.py:make", kwargs=("length=6",), wrappers=("mine.py:Twice(factor=3)",), labels="mine.py:labels"
    )
    assert config.action_names == ("back", "forth")
    assert config.input_names == ("place",)
    assert config.steps_per_second == 7
    env = make_labelled(config)
    assert {name: each.kind for name, each in env.concepts.items()} == {"far": "boolean", "place": "number"}
    obs, info = env.reset(seed=1)
    total = 0.0
    while total == 0:
        assert info["labels"] == {"far": float(obs[0] > 3), "place": obs[0]}
        assert env.render()[0, :, 0].argmax() == obs[0]
        obs, reward, *_, info = env.step(1)
        total += reward
    assert (total, obs[0]) == (3, 6)


def test_entries_of_info_are_labels_if_they_are_named(mine):
    env = make_labelled(env_config("mine.py:make", info=("at", "near")))
    obs, info = env.reset(seed=0)
    assert info["labels"] == {"at": obs[0], "near": float(obs[0] > 2)}
    assert {name: each.kind for name, each in env.concepts.items()} == {"near": "boolean", "at": "number"}


def test_an_id_of_another_package_is_found_by_importing_it(mine, monkeypatch):
    monkeypatch.syspath_prepend(mine)
    (mine / "theirs.py").write_text(
        'import gymnasium\ngymnasium.register("Theirs-v0", entry_point="mine:make", max_episode_steps=4)\n'
    )
    config = env_config("theirs:Theirs-v0")
    assert (config.spaces.max_steps, config.observation_shape) == (4, (1,))
    with pytest.raises(UserError, match="unknown environment 'Theirs-v1'; the nearest are Theirs-v0"):
        env_config("theirs:Theirs-v1")


def test_an_id_that_another_package_has_registered_is_code_of_that_package(mine, monkeypatch):
    monkeypatch.syspath_prepend(mine)
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)
    gymnasium.register("Plugged-v0", entry_point="mine:make")
    config = env_config("Plugged-v0")
    assert [code.reference for code in config.code] == ["mine:*"]
    make_labelled(config)
    monkeypatch.setenv("RL_INTERP_TRUST", str(mine / "nobody"))
    for read, sentence in ((config, "only if you trust it"), (replace(config, code=()), "without a hash")):
        with pytest.raises(UserError, match=sentence):
            make_labelled(read)


def test_an_id_of_a_family_is_gymnasiums_own_if_it_is_wrapped():
    assert isinstance(env_config("ALE/Pong-v5"), AtariConfig)
    wrapped = env_config("MiniGrid-Empty-5x5-v0", wrappers=("minigrid.wrappers:ImgObsWrapper",), symbols=(11, 6, 4))
    assert isinstance(wrapped, GymConfig)
    assert (wrapped.observation_kind, wrapped.categories, wrapped.observation_shape) == (
        "symbols", (11, 6, 4), (3, 7, 7),
    )  # fmt: skip
    assert wrapped.action_names[:3] == ("left", "right", "forward")


@dataclass(frozen=True)
class Played:
    env: EnvConfig


def test_a_config_from_a_file_runs_nothing_until_it_is_trusted(mine, monkeypatch):
    (mine / "mine.py").write_text(MINE + "\nfrom pathlib import Path\nPath('ran').touch()\n")
    config = env_config("mine.py:make", labels="mine.py:labels", wrappers=("mine.py:Twice",))
    assert Path("ran").exists()
    Path("ran").unlink()
    plain = to_plain(Played(config))
    monkeypatch.setenv("RL_INTERP_TRUST", str(mine / "nobody"))
    monkeypatch.setattr("sys.modules", {k: v for k, v in __import__("sys").modules.items() if "mine" not in k})
    read = from_plain(Played, plain, "config.yaml").env
    assert read == config
    with pytest.raises(UserError, match="is run only if you trust it"):
        make_labelled(read)
    with pytest.raises(UserError, match="is run only if you trust it"):
        make_vector(read, 2)
    assert not Path("ran").exists()
    without = from_plain(Played, {"env": {**plain["env"], "code": []}}, "config.yaml").env
    with pytest.raises(UserError, match="without a hash"):
        make_labelled(without)


def test_episodes_that_do_not_follow_from_seeds_are_not_played_again(mine, tmp_path):
    config = env_config("mine.py:Noisy")
    assert not config.spaces.seeded
    store = collect(Hashing(2), config, "seen", 20, tmp_path / "store", seed=0, num_envs=2)
    with pytest.raises(UserError, match="episodes of mine.py:Noisy do not follow from their seeds and actions"):
        list(revisit(config, store))


def test_episodes_without_labels_are_stored_at_once_when_there_are_enough_states(mine, tmp_path):
    store = collect(Hashing(2), env_config("mine.py:Endless"), "seen", 20, tmp_path / "store", seed=3, num_envs=3)
    steps = [store.column("step")[store.column("episode_seed") == seed].tolist() for seed in (3, 4, 5)]
    assert steps == [[*range(7)], [*range(7)], [*range(6)]]


def test_an_episode_that_never_ends_is_given_up(mine, tmp_path, monkeypatch):
    monkeypatch.setattr("rl_interp.core.rollout.LONGEST", 50)
    config = env_config("mine.py:Endless", labels="mine.py:labels")
    with pytest.raises(UserError, match="an episode has not ended in 50 steps"):
        evaluate(Hashing(2), make_vector(config, 2), 2, seed=0)
    with pytest.raises(UserError, match="an episode has not ended in 50 steps"):
        collect(Hashing(2), config, "seen", 20, tmp_path / "store", seed=0, num_envs=2)


def test_labels_are_given_to_an_environment_that_had_none(mine):
    plain = env_config("mine.py:make", kwargs=("length=6",))
    assert labelled_by(plain, "mine.py:labels") == env_config(
        "mine.py:make", kwargs=("length=6",), labels="mine.py:labels"
    )
    assert labelled_by(plain, info=["at"]) == env_config("mine.py:make", kwargs=("length=6",), info=["at"])
    again = labelled_by(labelled_by(plain, "mine.py:labels"), info=["at"])
    assert again == labelled_by(plain, info=["at"])
    with pytest.raises(UserError, match=r"labels of ALE/MsPacman-v5 given, whose ground truth is the suite's own"):
        labelled_by(AtariConfig(), "mine.py:labels")


def test_an_environment_that_has_changed_is_noticed_when_it_is_played_again(mine, tmp_path):
    config = env_config("mine.py:make")
    store = collect(Hashing(2), config, "seen", 20, tmp_path / "store", seed=0, num_envs=2)
    assert len(list(revisit(config, store))) == store.samples
    (mine / "mine.py").write_text(MINE.replace("self.at, self.steps = int(", "self.at, self.steps = 1 + int("))
    changed = env_config("mine.py:make")
    with pytest.raises(UserError, match=r"step 0 of episode 0 looks otherwise now that it is played again"):
        list(revisit(changed, store))


BAD = """
import gymnasium
import numpy as np
import mine


def raises():
    raise RuntimeError("no luck")


def gives_none():
    return None


class Texts(mine.Walk):
    def __init__(self):
        super().__init__()
        place, said = self.observation_space, gymnasium.spaces.Text(5)
        self.observation_space = gymnasium.spaces.Dict({"place": place, "said": said})


class Changes(mine.Walk):
    made = 0

    def __init__(self):
        Changes.made += 1
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(0, 1, (Changes.made,))


class Lies(mine.Walk):
    def look(self):
        return np.zeros(3, np.float32), {}


class Fails(mine.Walk):
    def step(self, action):
        raise ValueError("stuck")


class Silent(mine.Walk):
    def step(self, action):
        assert action > 5


class Old(mine.Walk):
    def step(self, action):
        return super().step(action)[:4]


class Unpaid(mine.Walk):
    def step(self, action):
        obs, _, *rest = super().step(action)
        return (obs, float("nan"), *rest)


class Many(mine.Walk):
    def __init__(self):
        super().__init__()
        self.action_space = gymnasium.spaces.MultiDiscrete([100, 100])


class Steers(mine.Walk):
    def __init__(self):
        super().__init__()
        self.action_space = gymnasium.spaces.Tuple([self.action_space])


def says_words(info, obs):
    return {"where": "here"}


def says_nan(info, obs):
    return {"where": float("nan")}


def says_a_number(info, obs):
    return 3
"""


@pytest.mark.parametrize(
    ("env_id", "asked", "sentence"),
    [
        ("CartPoll-v1", {}, r"unknown environment 'CartPoll-v1'; the nearest are CartPole-v1, "),
        ("MsPacman-v5", {}, "the nearest are .*ALE/MsPacman-v5"),
        ("bad.py:raises", {}, r"bad.py:raises raised an error: RuntimeError: no luck \(line 8\)"),
        ("bad.py:gives_none", {}, "bad.py:gives_none gave NoneType, where a gymnasium.Env is wanted"),
        ("bad.py:nothing", {}, "unknown function of bad.py 'nothing'"),
        ("bed.py:make", {}, r"there is no file bed.py .*did you mean bad.py"),
        ("bad.py:Texts", {}, r"shows a Text as 'said', .*FilterObservation\(filter_keys=\['place'\]\)"),
        ("bad.py:Changes", {}, r"has observations \('vector', 2\), where \('vector', 1\) was recorded"),
        ("bad.py:Lies", {}, r"showed an array of shape \(3,\), which is not of its Box"),
        ("bad.py:Fails", {}, "failed at a step with action .: ValueError: stuck"),
        (
            "bad.py:Silent",
            {},
            r"failed at a step with action .: AssertionError: at `assert action > 5` in bad.py, line ",
        ),
        ("bad.py:Old", {}, "failed at a step with action .: ValueError: not enough values to unpack"),
        ("bad.py:Unpaid", {}, "gave the reward nan"),
        ("bad.py:Many", {}, "which are 10,000 joint ones; at most 4,096 are taken"),
        ("bad.py:Steers", {}, "takes actions of Tuple; wanted are Discrete, MultiDiscrete, MultiBinary or Box"),
        ("CartPole-v1", {"kwargs": ("speed",)}, "'speed' given as a setting of an environment; give name=value"),
        ("CartPole-v1", {"kwargs": ("speed=3",)}, "CartPole-v1 can't be made: TypeError: .*speed"),
        ("CartPole-v1", {"wrappers": ("Flat",)}, "'Flat' given as a wrapper; name a class"),
        ("CartPole-v1", {"wrappers": ("mine.py:Twice(factor=open('x'))",)}, "name a class, as in"),
        ("CartPole-v1", {"wrappers": ("gymnasium.wrappers:ResizeObservation",)}, "can't wrap CartPole-v1: TypeError"),
        ("CartPole-v1", {"wrappers": ("bad.py:gives_none",)}, "bad.py:gives_none raised an error: TypeError"),
        ("CartPole-v1", {"symbols": (2,)}, r"symbols=\(2,\) given, and CartPole-v1 shows Box"),
        (
            "CartPole-v1",
            {"labels": "bad.py:says_words"},
            "gave 'here' for 'where', where true, false or a finite number",
        ),
        ("CartPole-v1", {"labels": "bad.py:says_nan"}, "gave nan for 'where', where true, false or a finite number"),
        ("CartPole-v1", {"labels": "bad.py:says_a_number"}, "gave int; wanted is a dict of numbers by name"),
        ("CartPole-v1", {"labels": "bad.py:raises"}, "bad.py:raises raised an error: TypeError"),
        ("mine.py:make", {"info": ("name",)}, "gave 'walk' for 'name', where true, false or a finite number"),
        ("mine.py:make", {"info": ("speed",)}, "info=speed given, and mine.py:make gave at, near, name as info"),
        ("mine.py:make", {"info": ("at",), "labels": "mine.py:labels"}, "both labels and info given"),
        ("LunarLander-v3", {}, "LunarLander-v3 can't be made: DependencyNotInstalled"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(mine, env_id, asked, sentence):
    (mine / "bad.py").write_text(BAD)
    if env_id == "LunarLander-v3" and __import__("importlib.util").util.find_spec("Box2D"):
        pytest.skip("its extra is installed")
    with pytest.raises(UserError, match=sentence):
        env_config(env_id, **asked)


def test_labels_that_come_and_go_are_refused(mine):
    (mine / "goes.py").write_text("def labels(info, obs):\n    return {'here': True} if abs(obs[0]) < 0.06 else {}\n")
    env = make_labelled(env_config("CartPole-v1", labels="goes.py:labels"))
    env.reset(seed=0)
    with pytest.raises(UserError, match="the label 'here' of CartPole-v1 is there in some states only"):
        for _ in range(50):
            env.step(1)


@pytest.mark.parametrize(
    ("renders", "sentence"),
    [
        (
            "def __init__(self): super().__init__(); self.metadata = {}",
            r"has no screen to show \(its render_modes are \[\]\)",
        ),
        ("def render(self): return None", r"gave NoneType, where uint8 \[H, W, 3\] is wanted"),
        ("def render(self): return np.zeros((3, 3))", r"gave float64 \(3, 3\), where uint8"),
        ("def render(self): raise OSError('no display')", "the renderer of .* failed: OSError: no display"),
    ],
)
def test_a_renderer_that_gives_nothing_is_said(mine, renders, sentence):
    (mine / "drawn.py").write_text(f"import mine, numpy as np\nclass Drawn(mine.Walk):\n    {renders}\n")
    env = make_labelled(env_config("drawn.py:Drawn"))
    env.reset(seed=0)
    with pytest.raises(UserError, match=sentence):
        env.render()


def test_a_damaged_config_is_refused_with_its_file():
    plain = to_plain(Played(env_config("CartPole-v1")))
    plain["env"]["spaces"]["shape"] = [0]
    with pytest.raises(RunError, match="config.yaml: env: spaces: shape="):
        from_plain(Played, plain, "config.yaml")
