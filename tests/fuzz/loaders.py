"""What is fuzzed: a valid file of each kind that is read, how it can be altered, and how it is read and used."""

import importlib
import io
import json
import pickle
import random
import shutil
import types
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import alterations as mutate
import numpy as np
import torch
from alterations import ANY, Mutation

from rl_interp import sae
from rl_interp.agents import dqn, dreamerv3, impala
from rl_interp.agents.load import load_agent
from rl_interp.agents.loop import _resumed
from rl_interp.agents.pretrained import dreamerv3 as pretrained_dreamerv3
from rl_interp.agents.pretrained import maze as pretrained_mazes
from rl_interp.agents.pretrained import sb3
from rl_interp.agents.pretrained.runs import policy_of
from rl_interp.agents.pretrained.vec_normalize import normalised, read_statistics
from rl_interp.analysis import study, study_results
from rl_interp.analysis.sae import sweep
from rl_interp.analysis.sae.names import Named, give_names, name_feature, names_of
from rl_interp.analysis.sae.runs import load_sae
from rl_interp.core.envs import MazeConfig, MiniGridConfig, env_config
from rl_interp.core.files import sha256, write_json
from rl_interp.core.progress import SILENT
from rl_interp.core.run import Run
from rl_interp.core.store import ActivationStore, StoreWriter

EMPTY = MiniGridConfig("MiniGrid-Empty-5x5-v0")
CARTPOLE, ACROBOT = env_config("CartPole-v1"), env_config("Acrobot-v1")
ORACLES = Path(__file__).parents[1] / "oracles"
RECORDING = ORACLES / "published_dreamerv3" / "vector.npz"


@dataclass(frozen=True)
class Target:
    """A file in a directory that `make` fills, and what reads it there."""

    make: Callable[[Path], None]
    file: str
    use: Callable[[Path], Any]
    mutations: tuple[Mutation, ...]
    checksum: Literal["none", "renewed", "kept"] = "none"
    """What becomes of its sha256 in the manifest beside it when it is altered; where that is kept, the file is refused.
    """

    def alter(self, directory: Path, original: bytes, mutation: str, seed: int) -> None:
        """Alter the file of `directory` from what it was."""
        how = next(each for each in self.mutations if each.__name__ == mutation)
        path = directory / self.file
        path.write_bytes(how(original, random.Random(seed)))
        if self.checksum == "renewed":
            beside = path.parent / "manifest.json"
            manifest = json.loads(beside.read_text())
            manifest["files"][path.name] = sha256(path)
            beside.write_text(json.dumps(manifest))


def _agent(kind: str, config: Any, make: Callable[[], torch.nn.Module]) -> Callable[[Path], None]:
    def made(directory: Path) -> None:
        torch.manual_seed(0)
        run = Run.create(directory, kind, config, 0)
        run.save_checkpoint(7, make().state_dict(), {"n": 1})
        run.path.joinpath("metrics.jsonl").write_text('{"step": 3, "loss": 0.5}\n{"step": 7, "loss": 0.25}\n')

    return made


def _step(loaded: Any) -> dict[str, Any]:
    obs = torch.zeros(2, *loaded.env.observation_shape, dtype=torch.uint8)
    with torch.no_grad():
        out = loaded.agent.step(obs, loaded.agent.initial_state(2))
    return {name: value for name, value in vars(out).items() if isinstance(value, torch.Tensor)}


def _play(directory: Path) -> dict[str, Any]:
    return _step(load_agent(directory, device="cpu"))


def _look_back(directory: Path) -> list[dict[str, Any]]:
    run = Run.open(directory)
    lines = run.metrics()
    run.rewind(5)
    return lines + run.metrics()


IMPALA = impala.IMPALAConfig(env=EMPTY, hidden=8, lstm=8)
DREAMERV3 = replace(dreamerv3.default_config(EMPTY.id, "debug"), batch_length=4, batch_size=2, learning_starts=10_000)
MAZE = impala.IMPALAConfig(env=MazeConfig(), channels=(2, 2, 2), hidden=4, lstm=0)
DQN = dqn.DQNConfig()

_impala = _agent("impala", IMPALA, lambda: impala.make_agent(IMPALA))
_dreamerv3 = _agent("dreamerv3", DREAMERV3, lambda: dreamerv3.make_agent(DREAMERV3))
_maze = _agent("impala-procgen", MAZE, lambda: pretrained_mazes.ProcgenMaze(MAZE))
_dqn = _agent("dqn", DQN, lambda: dqn.DQN(9))


@cache
def _training() -> Any:
    return dreamerv3.Training(replace(DREAMERV3, replay_on_disk=False), 0, None)  # pyright: ignore


def _with_state(directory: Path) -> None:
    torch.manual_seed(0)
    training = dreamerv3.Training(replace(DREAMERV3, replay_on_disk=False), 0, None)  # pyright: ignore
    for _ in range(3):
        training.advance()
    Run.create(directory, "dreamerv3", DREAMERV3, 0).save_checkpoint(12, training.agent.state_dict(), training.state())


def _resume_and_play(directory: Path) -> None:
    training = _training()
    with _resumed(training, DREAMERV3, Run(directory)):
        training.advance()


def _store(directory: Path, rows: int = 12) -> None:
    with StoreWriter(directory, "fc.post", {"run": "r", "step": 1}, shard_rows=6) as writer:
        rng = np.random.default_rng(0)
        for start in range(0, rows, 6):
            columns = {"episode": np.arange(start, start + 6) // 3, "value": np.ones(6), "dead": np.ones(6, bool)}
            writer.append(rng.standard_normal((6, 8)).astype(np.float32), columns)


def _read_rows(directory: Path) -> dict[str, Any]:
    store = ActivationStore(directory)
    rows = np.arange(len(store))
    return {"rows": store.read(rows)} | {name: store.column(name, rows) for name in store.columns()}


def _dictionary(kind: type[sae.SAE], *sizes: int) -> Callable[[Path], None]:
    def made(directory: Path) -> None:
        torch.manual_seed(0)
        dictionary = kind(*sizes)
        for weight in dictionary.parameters():
            torch.nn.init.normal_(weight)
        sae.save(dictionary, directory, {"hook_name": "fc.post"})

    return made


def _encode(directory: Path) -> torch.Tensor:
    dictionary = sae.load(directory)
    with torch.no_grad():
        return dictionary(torch.ones(2, dictionary.d_in))


def _fitted(directory: Path) -> None:
    _impala(directory / "agent")
    _store(directory / "store")
    config = sae.SAEConfig(latents=12, k=3)
    parent = {"run": str(directory / "agent"), "step": 7, "hook": "fc.post", "store": str(directory / "store")}
    run = Run.create(directory / "sae", "sae", config, 0, parent)
    run.save_checkpoint(5, sae.TopK(8, 12, 3).state_dict())


def _open_fitted(directory: Path) -> torch.Tensor:
    fitted = load_sae(directory / "sae")
    with torch.no_grad():
        return fitted.sae(torch.from_numpy(fitted.store.read(np.arange(2))))


def _named(directory: Path) -> None:
    run = Run.create(directory, "sae", sae.SAEConfig(latents=12, k=3), 0)
    give_names(run, {3: Named("ghost to the left", "beside walls"), 7: Named("<b>pill</b>")})


def _name_another(directory: Path) -> dict[int, list[int]]:
    """All names, as numbers, once another feature has one."""
    run = Run.open(directory)
    name_feature(run, 5, Named("corner"))
    json.dumps({feature: asdict(each) for feature, each in names_of(run).items()}, ensure_ascii=False).encode()
    return {feature: [*f"{each.name}\n{each.note}".encode()] for feature, each in names_of(run).items()}


def _policy(before_1_6: bool) -> Callable[[Path], None]:
    theirs = {
        r"torso.sections.": "embedder.block",
        "policy": "fc_policy",
        "baseline": "fc_value",
        "fc.": "embedder.fc.",
    }

    def name(ours: str) -> str:
        if ours.startswith("torso"):
            section, rest = ours.removeprefix("torso.sections.").split(".", 1)
            return f"embedder.block{int(section) + 1}.{rest}"
        return next(new + ours[len(old) :] for old, new in theirs.items() if ours.startswith(old))

    def made(directory: Path) -> None:
        torch.manual_seed(0)
        directory.mkdir(parents=True)
        weights = {name(ours): w for ours, w in pretrained_mazes.ProcgenMaze(MAZE).state_dict().items()}
        content = {"model_state_dict": weights, "optimizer_state_dict": {"state": {0: {"step": 3}}}}
        torch.save(content, directory / "it.pth", _use_new_zipfile_serialization=not before_1_6)

    return made


def _import_maze(directory: Path) -> None:
    path = directory / "it.pth"
    _, agent = pretrained_mazes.agent_of(pretrained_mazes.read_checkpoint(path), 5, path)
    with torch.no_grad():
        agent.step(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def _published(directory: Path) -> None:
    directory.mkdir(parents=True)
    with np.load(RECORDING) as recorded:
        weights = {n.removeprefix("weights/"): recorded[n] for n in recorded if n.startswith("weights/")}
    places, rng = 7 * 7 * 21, np.random.default_rng(0)
    shapes = {
        "wm/rssm/img_in/kernel": (16 + 7, 16), "wm/enc/mlp/h0/kernel": (places, 16),
        "wm/dec/mlp/dist_vector/out/kernel": (16, places), "wm/dec/mlp/dist_vector/out/bias": (places,),
        "task_behavior/ac/actor/dist_out/out/kernel": (16, 7), "task_behavior/ac/actor/dist_out/out/bias": (7,),
    }  # fmt: skip
    weights |= {f"agent/{n}": rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
    (directory / "checkpoint.ckpt").write_bytes(pickle.dumps({"step": 12, "agent": weights, "_timestamp": 1.0}, 4))


def _import_dreamerv3(directory: Path) -> None:
    path = directory / "checkpoint.ckpt"
    step, arrays = pretrained_dreamerv3.read_checkpoint(path)
    assert isinstance(step, int)
    agent = pretrained_dreamerv3.agent_of(arrays, EMPTY, path)
    with torch.no_grad():
        agent.step(torch.zeros(1, *EMPTY.observation_shape, dtype=torch.uint8))


def dreamerv3_arrays(data: bytes, rng: random.Random) -> bytes:
    """The pickle with one array of another kind, shape or name, in any protocol."""
    content = pickle.loads(data)
    name = rng.choice(sorted(content["agent"]))
    old = content["agent"].pop(name)
    content["agent"] |= rng.choice([
        {}, {f"{name}x": old}, {name: old.astype(np.float64)}, {name: old.ravel()}, {name: np.full_like(old, np.nan)},
        {name: old.astype(object)}, {name: np.array(["x"])}, {name: old.T}, {name: np.float32(3)},
        {name: old.ravel()[:0]},
        {name: np.zeros((2, 2), "f4,i4")}, {name: 3}, {name: old.astype(">f4")}, {name: np.zeros(())}, {3: old},
    ])  # fmt: skip
    content["step"] = rng.choice([3, np.int64(4), np.int32(-1), "x", 2**70, None, [1]])
    return pickle.dumps(content, rng.choice([2, 3, 4, 5]))


def _model(name: str) -> Callable[[Path], None]:
    def made(directory: Path) -> None:
        directory.mkdir(parents=True)
        for ending in ("zip", "pkl"):
            if (file := ORACLES / "published_sb3" / f"{name}.{ending}").is_file():
                shutil.copy(file, directory / f"it.{ending}")

    return made


def _import_sb3(directory: Path) -> torch.Tensor:
    path, pickled = directory / "it.zip", directory / "it.pkl"
    config, weights = sb3.read(path, ACROBOT if pickled.is_file() else CARTPOLE)
    if pickled.is_file() and (found := read_statistics(pickled)):
        config, weights = normalised(config, weights, found, pickled)
    agent = policy_of(config, weights, path)
    with torch.no_grad():
        obs = torch.zeros(2, *config.env.observation_shape)
        return agent.step(obs, agent.initial_state(2)).preferences


def sb3_parts(data: bytes, rng: random.Random) -> bytes:
    """A model with its JSON or its weights altered."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name, how = rng.choice([("data", mutate.json_value)] * 3 + [("policy.pth", state_values)])
    entries[name] = how(entries[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for each, content in entries.items():
            archive.writestr(each, content)
    return out.getvalue()


def state_values(data: bytes, rng: random.Random) -> bytes:
    """What was saved, with a value or a tensor altered."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    places = [(parent, key) for parent, key in mutate._places(content) if isinstance(parent, dict | list)]
    parent, key = rng.choice(places)
    if isinstance(parent[key], torch.Tensor):
        parent[key] = mutate.tensors({"x": parent[key]}, rng).get("x", rng.choice(mutate.ODD))
    else:
        parent[key] = rng.choice([*mutate.ODD, torch.ones(2), torch.zeros(1).expand(10**9)])
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def _json(name: str, content: Any) -> Callable[[Path], None]:
    def made(directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        write_json(directory / name, content)

    return made


EVALUATION = {
    "returns": {"original": [1.0, 2.0, 3.0], "spliced": [1.0, 1.5, 2.0], "zero": [0.0, 0.0, 1.0]},
    "return_recovered": 0.9, "return_recovered_interval": [0.5, 1.0],
}  # fmt: skip
FIGURES = EVALUATION | {"fvu": 0.1, "l0": 3.0, "dead_fraction": 0.0}
JOB = study.Job("impala", "MiniGrid-Unlock-v0", "base", 0, ("train", "impala"))
RESULT = {
    "agent": "impala", "env": "MiniGrid-Unlock-v0", "condition": "base", "seed": 0, "command": JOB.line,
    "steps": [1, 2], "returns": [0.0, 0.5], "evaluation": {"mean": 0.5, "success_rate": 1.0}, "steps_per_second": 10.0,
}  # fmt: skip


def _judge(directory: Path) -> None:
    fitted = types.SimpleNamespace(run=Run(directory), made_from={})
    importlib.import_module("rl_interp.analysis.sae.report")._evaluation(fitted, SILENT)


def _compare(directory: Path) -> None:
    result = study._read_result(JOB, directory)
    study_results.markdown(study_results.compare([result, RESULT], "base"))


_JSON, _YAML = (
    (*ANY, mutate.json_value, mutate.same_json),
    (*ANY, mutate.yaml_value, mutate.yaml_text, mutate.same_yaml),
)
_TENSORS = (*ANY, mutate.safetensors_header, mutate.safetensors_values, mutate.same_tensors)
_TABLE = (*ANY, mutate.parquet_table, mutate.same_table)
_TORCH = (*ANY, mutate.archived_bytes)

TARGETS = {
    "impala-config": Target(_impala, "config.yaml", _play, _YAML),
    "dqn-config": Target(_dqn, "config.yaml", _play, _YAML),
    "dreamerv3-config": Target(_dreamerv3, "config.yaml", _play, _YAML),
    "maze-config": Target(_maze, "config.yaml", _play, _YAML),
    "meta": Target(_impala, "meta.json", _play, _JSON),
    "manifest": Target(_impala, "checkpoints/7/manifest.json", _play, _JSON),
    "metrics": Target(_impala, "metrics.jsonl", _look_back, (*ANY, mutate.json_line, mutate.same_json_lines)),
    "impala-weights": Target(_impala, "checkpoints/7/model.safetensors", _play, _TENSORS, checksum="renewed"),
    "dreamerv3-weights": Target(_dreamerv3, "checkpoints/7/model.safetensors", _play, _TENSORS, checksum="renewed"),
    "unsigned-weights": Target(_maze, "checkpoints/7/model.safetensors", _play, _TENSORS, checksum="kept"),
    "state": Target(
        _with_state, "checkpoints/12/state.pt", _resume_and_play, (*_TORCH, state_values), checksum="renewed"
    ),
    "store-manifest": Target(_store, "manifest.json", _read_rows, _JSON),
    "store-shard": Target(_store, "shard-00001.npy", _read_rows, (*ANY, mutate.npy_header), checksum="renewed"),
    "store-index": Target(_store, "index.parquet", _read_rows, _TABLE, checksum="renewed"),
    "dictionary-config": Target(_dictionary(sae.TopK, 8, 12, 3), "cfg.json", _encode, _JSON),
    "transcoder-config": Target(_dictionary(sae.JumpReLU, 8, 12, 5), "cfg.json", _encode, _JSON),
    "dictionary-weights": Target(_dictionary(sae.JumpReLU, 8, 12), "sae_weights.safetensors", _encode, _TENSORS),
    "dictionary-run-meta": Target(_fitted, "sae/meta.json", _open_fitted, _JSON),
    "dictionary-run-config": Target(_fitted, "sae/config.yaml", _open_fitted, _YAML),
    "dictionary-run-weights": Target(
        _fitted, "sae/checkpoints/5/model.safetensors", _open_fitted, _TENSORS, checksum="renewed"
    ),
    "dictionary-names": Target(_named, "names.json", _name_another, _JSON),
    "maze-policy": Target(_policy(False), "it.pth", _import_maze, _TORCH),
    "old-maze-policy": Target(_policy(True), "it.pth", _import_maze, (*ANY, mutate.pickle_code)),
    "dreamerv3-checkpoint": Target(
        _published, "checkpoint.ckpt", _import_dreamerv3, (*ANY, mutate.pickle_code, dreamerv3_arrays)
    ),
    "sb3-ppo": Target(_model("ppo"), "it.zip", _import_sb3, (*_TORCH, sb3_parts)),
    "sb3-recurrent": Target(_model("recurrent-ppo"), "it.zip", _import_sb3, (*_TORCH, sb3_parts)),
    "vecnormalize": Target(_model("ppo-normalised"), "it.pkl", _import_sb3, (*ANY, mutate.pickle_code)),
    "evaluation": Target(_json("analyses/evaluation.json", EVALUATION), "analyses/evaluation.json", _judge, _JSON),
    "sweep": Target(_json("sae.json", FIGURES), "sae.json", lambda d: sweep._read_figures(d / "sae.json"), _JSON),
    "study": Target(_json(f"{JOB.name}.json", RESULT), f"{JOB.name}.json", _compare, _JSON),
}  # fmt: skip

_ = env_config  # an id of every family is looked up once, so that no target's time has its package's import
