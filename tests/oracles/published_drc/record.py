"""A DRC written in Flax, saved as the published ones are, and what it says of some observations.

`python tests/oracles/published_drc/record.py`, in an environment with flax and optax, records a small one in this
folder: `cfg.json` and `model`, as train-learned-planner saves its checkpoints (a `TrainState`, by
`flax.serialization.to_bytes`, of parameters with the same names), and `said.npz`. The network is written from the
equations of Taufeeque et al. 2024 (arXiv 2407.15421), appendix; nothing of rl-interp is used.
"""

import json
from pathlib import Path

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

HERE = Path(__file__).parent
LAYERS, TICKS, CHANNELS, HIDDEN, ACTIONS = 2, 3, 4, 8, 4
TIME, BATCH, HEIGHT, WIDTH = 4, 3, 6, 5
CONV = {"features": CHANNELS, "strides": [1, 1], "padding": "SAME", "use_bias": True, "initialization": "lecun"}
NET = {
    "_type_": "cleanba.convlstm:ConvLSTMConfig",
    "yang_init": False, "norm": {"_type_": "cleanba.network:IdentityNorm"}, "normalize_input": False, "head_scale": 1.0,
    "n_recurrent": LAYERS, "repeats_per_step": TICKS, "mlp_hiddens": [HIDDEN], "skip_final": True, "residual": False,
    "embed": [CONV | {"kernel_size": [4, 4]}] * 2, "use_relu": False,
    "recurrent": {
        "conv": CONV | {"kernel_size": [3, 3]}, "pool_and_inject": "horizontal", "pool_projection": "per-channel",
        "output_activation": "tanh", "forget_bias": 0.0, "fence_pad": "valid",
    },
}  # fmt: skip


class Cell(nn.Module):
    @nn.compact
    def __call__(self, x, below, h, c):
        project = self.param("project", nn.initializers.normal(1.0), (2, CHANNELS))
        pooled = project[0] * h.max((1, 2)) + project[1] * h.mean((1, 2))
        pooled = jnp.broadcast_to(pooled[:, None, None], h.shape)
        fence = jnp.pad(jnp.zeros((1, *h.shape[1:3], 1)), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
        bias = nn.initializers.normal(0.5)
        gates = nn.Conv(4 * CHANNELS, (3, 3), name="ih", bias_init=bias)(jnp.concatenate([x, below, pooled], -1))
        gates += nn.Conv(4 * CHANNELS, (3, 3), name="hh", use_bias=False)(h)
        gates += nn.Conv(4 * CHANNELS, (3, 3), name="fence", use_bias=False, padding="VALID")(fence)
        i, j, f, o = jnp.split(gates, 4, -1)
        c = nn.sigmoid(f) * c + jnp.tanh(i) * nn.sigmoid(j)
        return jnp.tanh(c) * jnp.tanh(o), c


class Network(nn.Module):
    def setup(self):
        self.conv_list = [nn.Conv(CHANNELS, (4, 4), bias_init=nn.initializers.normal(0.5)) for _ in range(2)]
        self.cell_list = [Cell() for _ in range(LAYERS)]
        self.dense_list = [nn.Dense(HIDDEN, bias_init=nn.initializers.normal(0.5))]

    def __call__(self, obs, h, c):
        x = self.conv_list[1](self.conv_list[0](obs.transpose(0, 2, 3, 1) / 255.0))
        h, c = list(h), list(c)
        for _ in range(TICKS):
            below = h[-1]
            for d, cell in enumerate(self.cell_list):
                h[d], c[d] = cell(x, below, h[d], c[d])
                below = h[d]
        return nn.relu(self.dense_list[0]((h[-1] + x).reshape(len(x), -1))), h, c


class Head(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width, name="Output", bias_init=nn.initializers.normal(0.5))(x)


class Policy(nn.Module):
    def setup(self):
        self.network_params, self.actor_params, self.critic_params = Network(), Head(ACTIONS), Head(1)

    def __call__(self, obs, h, c):
        hidden, h, c = self.network_params(obs, h, c)
        return self.actor_params(hidden), self.critic_params(hidden)[..., 0], h, c


def main() -> None:
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, (TIME, BATCH, 3, HEIGHT, WIDTH), np.uint8)
    first = rng.random((TIME, BATCH)) < 0.3
    zeros = [jnp.zeros((BATCH, HEIGHT, WIDTH, CHANNELS))] * LAYERS
    policy = Policy()
    params = policy.init(jax.random.PRNGKey(0), obs[0], zeros, zeros)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adam)(4e-4))
    state = TrainState.create(apply_fn=None, params=params, tx=optax.MultiSteps(optimizer, 1))
    (HERE / "model").write_bytes(flax.serialization.to_bytes(state))
    (HERE / "cfg.json").write_text(json.dumps({"cfg": {"net": NET, "num_steps": 20}, "update_step": 1}))
    h = c = zeros
    logits, values = [], []
    for seen, begun in zip(obs, first, strict=True):
        keep = jnp.asarray(~begun, jnp.float32)[:, None, None, None]
        each, value, h, c = policy.apply(params, seen, [leaf * keep for leaf in h], [leaf * keep for leaf in c])
        logits.append(each)
        values.append(value)
    state = {name: np.stack(leaf, 1).transpose(0, 1, 4, 2, 3) for name, leaf in (("h", h), ("c", c))}
    said = {"logits": np.stack(logits), "values": np.stack(values)} | state
    np.savez_compressed(HERE / "said.npz", obs=obs, first=first, **said)


if __name__ == "__main__":
    main()
