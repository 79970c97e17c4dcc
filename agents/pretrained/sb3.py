"""Models that Stable-Baselines3 and its contrib package saved: a zip with JSON, and the weights of PyTorch beside it.

What JSON can't hold stands in it as a pickle, with the first level of its attributes beside it as text. Pickles are not
read: what shapes the network is in that text and in the weights. Measured in 2.9.2 and in models saved since 1.0: a
`net_arch` that is the default is absent; bounds of spaces are elided; spaces have images channels first.
"""

import base64
import io
import json
import pickletools
import re
import reprlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from rl_interp.agents.pretrained.layers import ACTIVATIONS, Input
from rl_interp.agents.pretrained.names import Renaming
from rl_interp.agents.pretrained.policy import PolicyConfig
from rl_interp.core.envs import EnvConfig
from rl_interp.core.envs.gym import GymConfig
from rl_interp.core.errors import RunError
from rl_interp.core.read import LIMITS, open_file, reading
from rl_interp.core.weights import state_of

KIND = "sb3"
"""The kind of runs that hold such a model."""
REMEDY = "give the .zip that model.save wrote"
READ = "DQN, QR-DQN, PPO, A2C, TRPO and RecurrentPPO"
OWN = "Wrap it as an agent of your own: `rl-interp import agent`."
_POLICIES = {
    "stable_baselines3.dqn.policies": "dqn",
    "sb3_contrib.qrdqn.policies": "qrdqn",
    "stable_baselines3.common.policies": "a2c",
    "sb3_contrib.common.recurrent.policies": "recurrent-ppo",
}
"""Modules of the policies that are read, and the algorithm; of the third, also PPO and TRPO."""
_REFUSED = {
    "stable_baselines3.sac.policies": "SAC",
    "stable_baselines3.td3.policies": "TD3 or DDPG",
    "sb3_contrib.tqc.policies": "TQC",
    "sb3_contrib.crossq.policies": "CrossQ",
    "sb3_contrib.ars.policies": "ARS",
    "sb3_contrib.common.maskable.policies": "MaskablePPO",
}
_WITHOUT_EFFECT = {
    "net_arch", "ortho_init", "log_std_init", "optimizer_class", "optimizer_kwargs", "n_quantiles", "lstm_hidden_size",
    "n_lstm_layers", "shared_lstm", "enable_critic_lstm", "share_features_extractor", "use_sde", "full_std",
    "lstm_kwargs",
}  # fmt: skip
"""Settings of a policy that matter for training alone, or that the shapes of its weights show."""
_SETTINGS = {"activation_fn", "normalize_images", "features_extractor_class", "features_extractor_kwargs"}
_NEVER = {"squash_output", "use_expln", "dist_kwargs"}
"""Settings that are read where they are off."""
_EXTRACTORS = ("FlattenExtractor", "NatureCNN", "CombinedExtractor")
_EXTRACTOR_SETTINGS = {"features_dim", "cnn_output_dim", "normalized_image"}


def read(path: Path, env: EnvConfig) -> tuple[PolicyConfig, dict[str, Tensor]]:
    """The configuration of a saved model, and its weights by our names. No code in the file is run.

    Raises:
        RunError: the file is no such zip; of another algorithm; has parts of its own code, which are named; or is of
            an environment with other spaces than `env`.
    """
    data, weights = contents(path)
    algorithm = _algorithm(data, path)
    model = _Model(path, data, algorithm, env, Renaming(weights, path, REMEDY))
    config = model.value_based() if algorithm in ("dqn", "qrdqn") else model.actor_critic()
    return config, model.names.finish(f"a policy of Stable-Baselines3's for {algorithm}")


def contents(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The readable part of a model, and the weights of its policy."""
    with open_file(path, REMEDY) as file, reading(path, REMEDY, "is no model of Stable-Baselines3's"):
        with zipfile.ZipFile(file) as archive:
            for name in ("data", "policy.pth"):
                if name not in archive.namelist():
                    raise RunError(f"{path} is a zip without {name!r}, so no model of Stable-Baselines3's; {REMEDY}.")
                entry = archive.getinfo(name)
                # What is not compressed is no larger than what is there.
                if entry.compress_type != zipfile.ZIP_STORED or (name == "data" and entry.file_size > LIMITS["json"]):
                    raise RunError(f"{path} has a {name!r} that Stable-Baselines3 does not write; {REMEDY}.")
            text, weights = archive.read("data"), archive.read("policy.pth")
        data = json.loads(text)
    state = state_of(io.BytesIO(weights), f"policy.pth of {path}", REMEDY)
    found = list(state.values()) if isinstance(state, dict) else []
    if not isinstance(data, dict) or not found or not all(isinstance(each, Tensor) for each in found):
        raise RunError(f"{path} holds no weights of a policy; {REMEDY}.")
    return data, {str(name): weight for name, weight in state.items()}


def readable(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An entry of a model: what it is where JSON holds it, or the text of what its pickle holds."""
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def settings_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """`policy_kwargs`; classes as texts."""
    return {name: value for name, value in readable(data, "policy_kwargs").items() if not name.startswith(":")}


def kind_of(space: Mapping[str, Any]) -> str:
    """The class of a space, as in `<class 'gymnasium.spaces.box.Box'>`."""
    match = re.search(r"\.(\w+)'>$", str(space.get(":type:", "")))
    return match[1] if match else "nothing"


def _algorithm(data: Mapping[str, Any], path: Path) -> str:
    policy = readable(data, "policy_class")
    module = policy.get("__module__", "")
    if module in _REFUSED:
        raise RunError(f"{path} is of {_REFUSED[module]}, which is not read; this suite reads {READ}.")
    if module not in _POLICIES:
        raise RunError(
            f"{path} has a policy of the class {_class_name(policy, module)}, whose code is not run; this suite reads "
            f"{READ} with Stable-Baselines3's own policies. {OWN}"
        )
    if module != "stable_baselines3.common.policies":
        return _POLICIES[module]
    return "ppo" if "clip_range" in data else "trpo" if "cg_max_steps" in data else "a2c"


def _class_name(pickled: Mapping[str, Any], module: str) -> str:
    """The name of a class, from the texts in its pickle, of which nothing is called."""
    try:
        operations = pickletools.genops(base64.b64decode(pickled[":serialized:"]))
        texts = [value for code, value, _ in operations if code.name.endswith("UNICODE") and isinstance(value, str)]
        name = texts[4] if texts[0].startswith("cloudpickle") else texts[1]  # by value, after its metaclass
    except Exception:  # whatever a damaged one raises
        return reprlib.repr(module)
    return f"{module}.{name}"


@dataclass
class _Model:
    """What is known of a model while it is read."""

    path: Path
    data: Mapping[str, Any]
    algorithm: str
    env: EnvConfig
    names: Renaming

    def value_based(self) -> PolicyConfig:
        net = {"dqn": "q_net", "qrdqn": "quantile_net"}[self.algorithm]
        self.names.drop(f"{net}_target.")
        settings = self._settings("ReLU")
        inputs = self._inputs(f"{net}.features_extractor", "parts", settings)
        hidden, outputs = self.names.head(f"{net}.{net}", "policy")
        actions = self._actions()
        output = "quantiles" if self.algorithm == "qrdqn" else "q"
        config = PolicyConfig(self.env, self.algorithm, output, actions, inputs, hidden)
        return replace(config, activation=settings["activation_fn"], support=outputs // actions[0])

    def actor_critic(self) -> PolicyConfig:
        if self.names.has("mlp_extractor.shared_net.0.weight"):
            raise RunError(
                f"{self.path} has layers that policy and value share after the features, which "
                f"Stable-Baselines3 dropped in 1.8 and this suite does not read. {OWN}"
            )
        settings = self._settings("Tanh")
        own = self._own_value_extractor()
        inputs = self._inputs("features_extractor", "parts", settings)
        self.names.drop("pi_features_extractor.")
        if own:
            self._inputs("vf_features_extractor", "value_parts", settings)
        self.names.drop("vf_features_extractor.")
        memory = self._memory()
        hidden = self.names.hidden("mlp_extractor.policy_net", "policy")
        value_hidden = self.names.hidden("mlp_extractor.value_net", "value")
        self.names.layer("action_net", "policy.out")
        self.names.layer("value_net", "value.out")
        output, actions = self._deviations(self._actions())
        config = PolicyConfig(self.env, self.algorithm, output, actions, inputs, hidden, value_hidden)
        return replace(config, activation=settings["activation_fn"], own_value_parts=own, **memory)

    def _settings(self, activation: str) -> dict[str, Any]:
        """`policy_kwargs`, as far as they shape what the network computes."""
        given = settings_of(self.data)
        for name, value in given.items():
            if (name in _NEVER and value) or name not in _SETTINGS | _NEVER | _WITHOUT_EFFECT:
                raise RunError(
                    f"{self.path} has a policy with {name}={reprlib.repr(value)}, which this suite does not read. {OWN}"
                )
        function = given.get("activation_fn", f"<class 'torch.nn.modules.activation.{activation}'>")
        if "features_extractor_class" in given:
            place = "stable_baselines3.common.torch_layers"
            self._stock(given["features_extractor_class"], "features extractor", place, _EXTRACTORS)
        if unknown := set(given.get("features_extractor_kwargs") or {}) - _EXTRACTOR_SETTINGS:
            raise RunError(
                f"{self.path} has a features extractor with the settings {sorted(unknown)}, which are not read. {OWN}"
            )
        return {
            "activation_fn": self._stock(function, "activation", "torch.nn.modules", ACTIVATIONS),
            "normalize_images": given.get("normalize_images", True),
        }

    def _stock(self, text: object, what: str, place: str, known: tuple[str, ...]) -> str:
        """The name of a class of the library's own."""
        match = re.fullmatch(r"<class '([\w.]+)\.(\w+)'>", text) if isinstance(text, str) else None
        if match and match[1].startswith(place) and match[2] in known:
            return match[2]
        named = f"{match[1]}.{match[2]}" if match else reprlib.repr(text)
        raise RunError(f"{self.path} has the {what} {named}, whose code is not run. {OWN}")

    def _inputs(self, theirs: str, ours: str, settings: Mapping[str, Any]) -> tuple[Input, ...]:
        """Take the layers of a features extractor; returns what they read."""
        space = readable(self.data, "observation_space")
        kind = kind_of(space)
        if kind == "Dict":
            return tuple(self._part(part, i, theirs, ours, settings) for i, part in enumerate(self._parts()))
        shape = self._shape(space, kind)
        divisor = 255.0 if _is_image(space, shape) and settings["normalize_images"] else 1.0
        if not self.names.has(f"{theirs}.cnn.0.weight"):
            return (Input(self.env.observation_shape, divisor=divisor),)
        channels, _ = self.names.convolutions(f"{theirs}.cnn", f"{ours}.parts.0")
        features, _ = self.names.layer(f"{theirs}.linear.0", f"{ours}.parts.0.fc")
        return (Input(shape, divisor=divisor, channels=channels, features=features),)

    def _parts(self) -> tuple[Any, ...]:
        """The parts of the environment's observation."""
        parts = self.env.spaces.parts if isinstance(self.env, GymConfig) else ()
        if not parts:
            raise RunError(
                f"{self.path} is of an agent that sees a Dict; {self.env.id} shows {self.env.observation_kind}."
            )
        return parts

    def _part(self, part: Any, number: int, theirs: str, ours: str, settings: Mapping[str, Any]) -> Input:
        """A key of a Dict; its image has its channels last where the environment has them there."""
        theirs, ours = f"{theirs}.extractors.{part.name}", f"{ours}.parts.{number}"
        if not self.names.has(f"{theirs}.cnn.0.weight"):
            return Input(part.shape, part.name)
        channels, colours = self.names.convolutions(f"{theirs}.cnn", ours)
        features, _ = self.names.layer(f"{theirs}.linear.0", f"{ours}.fc")
        last = part.shape[0] != colours
        shape = (part.shape[-1], *part.shape[:-1]) if last else part.shape
        if len(shape) != 3 or shape[0] != colours:
            raise RunError(
                f"{self.path} is of an agent that reads {part.name!r} as an image of {colours} channels; {self.env.id} "
                f"shows {part.shape}."
            )
        divisor = 255.0 if settings["normalize_images"] else 1.0
        return Input(shape, part.name, last, divisor, channels=channels, features=features)

    def _shape(self, space: Mapping[str, Any], kind: str) -> tuple[int, ...]:
        """Of an observation, which must be that of the environment."""
        shapes = {"Box": _numbers(space.get("_shape", space.get("shape"))), "Discrete": _numbers(space.get("n"))}
        shapes["MultiBinary"], nvec = shapes["Box"], _numbers(space.get("nvec"))
        shapes["MultiDiscrete"] = (sum(nvec),)
        shape, have = shapes.get(kind, ()), self.env.observation_shape
        fits = shape == have if len(have) == 3 and len(shape) == 3 else prod(shape) == prod(have)
        if not shape or not fits or self.env.categories is not None:
            raise RunError(
                f"{self.path} is of an agent that sees a {kind} of {shape}; {self.env.id} shows "
                f"{self.env.observation_kind} of {have}: give --env as what it was trained in, with its wrappers."
            )
        return shape

    def _actions(self) -> tuple[int, ...]:
        space = readable(self.data, "action_space")
        kind = kind_of(space)
        if kind == "Box":
            return (prod(_numbers(space.get("_shape", space.get("shape")))),)
        numbers = _numbers(space.get({"Discrete": "n", "MultiDiscrete": "nvec"}.get(kind, "")))
        if not numbers or prod(numbers) < 1:
            raise RunError(
                f"{self.path} is of an agent with {kind} actions; wanted are Discrete, MultiDiscrete or Box."
            )
        return numbers

    def _deviations(self, actions: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
        """What the last layer gives, and of how many actions."""
        if not self.names.has("log_std"):
            return "logits", actions
        log_std = self.names.take("log_std")
        if log_std.dim() == 2:  # a row a feature, which all actions may share
            self.names.found["log_std"] = log_std.expand(-1, actions[0])
            return "gsde", actions
        self.names.found["log_std"] = log_std
        return "gaussian", actions

    def _own_value_extractor(self) -> bool:
        """Whether the value's features extractor is one of its own; one that is shared is saved three times."""
        theirs, first = "vf_features_extractor.", "features_extractor."
        pairs = [(name, first + name.removeprefix(theirs)) for name in self.names.left if name.startswith(theirs)]
        return any(not (self.names.has(b) and self.names.left[a].equal(self.names.left[b])) for a, b in pairs)

    def _memory(self) -> dict[str, Any]:
        """The LSTMs, and what the value has of them."""
        width, layers = self.names.lstms("lstm_actor", "lstm")
        if not layers:
            return {}
        kind = "shared"
        if self.names.has("lstm_critic.weight_ih_l0"):
            kind = "own"
            self.names.lstms("lstm_critic", "value_lstm")
        elif self.names.has("critic.weight"):
            kind = "none"
            self.names.layer("critic", "value_linear")
        return {"lstm": width, "lstm_layers": layers, "value_memory": kind}


def _numbers(value: object) -> tuple[int, ...]:
    """Whole numbers, in a list or in the text of an array."""
    return tuple(map(int, re.findall(r"\d+", str(value)[:10_000]))) if value is not None else ()


def _is_image(space: Mapping[str, Any], shape: tuple[int, ...]) -> bool:
    """Whether Stable-Baselines3 takes it for an image, and so divides it by 255."""
    bounds = [set(re.findall(r"\d+", str(space.get(name)))) for name in ("low", "high")]
    return len(shape) == 3 and space.get("dtype") == "uint8" and bounds == [{"0"}, {"255"}]
