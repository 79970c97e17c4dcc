"""What the published package `dreamerv3` 1.5.0 computes, as arrays; run in the environment of `make parity`.

    python reference.py {image,vector} SIZE BATCH LENGTH OUT.npz

The weights are the published initial ones with noise added, so that no output is zero by construction. Samples are
drawn with `noise`, which the other side repeats.
"""

import sys
import warnings
import zlib

warnings.filterwarnings("ignore")

import dreamerv3  # noqa: E402, F401 - puts `embodied` on the path
import embodied  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from dreamerv3 import agent as published  # noqa: E402
from dreamerv3 import jaxutils, ninjax  # noqa: E402

ACTIONS = 5


def noise(shape):
    """Gumbel noise, the same for every draw from probabilities of a shape."""
    seed = zlib.crc32(repr(tuple(int(side) for side in shape)).encode())
    return np.random.default_rng(seed).gumbel(size=shape).astype(np.float32)


def sample(self, sample_shape=(), seed=None):
    logits = self.logits_parameter()
    probs = jax.nn.softmax(logits)
    one_hot = jax.nn.one_hot(jnp.argmax(logits + noise(logits.shape), -1), logits.shape[-1])
    drawn = jax.lax.stop_gradient(one_hot) + probs - jax.lax.stop_gradient(probs)
    return drawn if np.size(sample_shape) == 0 else drawn[None]


def make(kind, size, batch, length, side, actions=ACTIONS):
    config = embodied.Config(published.Agent.configs["defaults"])
    config = config.update(published.Agent.configs["crafter"]).update(published.Agent.configs[size])
    config = config.update({"batch_size": batch, "batch_length": length, "jax.precision": "float32"})
    config = config.update({"jax.platform": "cpu", "jax.jit": True, "jax.debug": False, "rssm.unroll": False})
    spaces = {
        "reward": embodied.Space(np.float32),
        "is_first": embodied.Space(bool),
        "is_last": embodied.Space(bool),
        "is_terminal": embodied.Space(bool),
    }
    if kind == "image":
        spaces["image"] = embodied.Space(np.uint8, (side, side, 3))
    else:
        spaces["vector"] = embodied.Space(np.float32, (80,))
        keys = {f"{part}.{which}_keys": {"mlp": "vector", "cnn": "$^"}[which]
                for part in ("encoder", "decoder") for which in ("mlp", "cnn")}  # fmt: skip
        config = config.update(keys)
        if size == "debug":
            config = config.update({f"{p}.mlp_{w}": v for p in ("encoder", "decoder") for w, v in
                                    (("layers", 2), ("units", 16))})  # fmt: skip
    action = embodied.Space(np.float32, (actions,), 0, 1)
    action._discrete = True
    return published.Agent(spaces, {"action": action}, embodied.Counter(), config)


def data(kind, batch, length, side):
    rng = np.random.default_rng(7)
    first = rng.random((batch, length)) < 0.15
    first[:, 0] = True
    values = {
        "action": np.eye(ACTIONS, dtype=np.float32)[rng.integers(ACTIONS, size=(batch, length))],
        "reward": (3 * rng.standard_normal((batch, length))).astype(np.float32),
        "is_first": first,
        "is_last": np.zeros((batch, length), bool),
        "is_terminal": rng.random((batch, length)) < 0.15,
    }
    if kind == "image":
        values["image"] = rng.integers(256, size=(batch, length, side, side, 3), dtype=np.uint8)
    else:  # two channels of 4×4 cells, of 3 and of 2 categories, as zeros and ones
        cells = [np.eye(n)[rng.integers(n, size=(batch, length, 4, 4))] for n in (3, 2)]
        values["vector"] = np.concatenate(cells, -1).reshape(batch, length, -1).astype(np.float32)
    return values


def weights(varibs):
    """All that is learned or follows what is learned; neither the optimisers' states nor counters."""
    return {k: np.asarray(v) for k, v in varibs.items() if "_opt" not in k and getattr(v, "dtype", 0) == np.float32}


def main(kind, size, batch, length, out):
    jaxutils.OneHotDist.sample = sample
    side = 32 if size == "debug" else 64
    agent = make(kind, size, batch, length, side)
    jax.config.update("jax_transfer_guard", "allow")
    rng = np.random.default_rng(3)
    start = dict(agent.varibs)
    for name, value in weights(start).items():
        start[name] = value + 0.05 * rng.standard_normal(value.shape).astype(np.float32)
        if "retnorm" in name:  # as after a while: at start they are zero, and advantages are divided by one
            start[name] = np.float32({"low": -1.0, "high": 2.0}[name.split("/")[-2]])
    batch_data = data(kind, batch, length, side)
    inner, key = agent.agent, jax.random.PRNGKey(0)
    wm, ac = inner.wm, inner.task_behavior.ac

    def pure(fn):
        run = ninjax.pure(fn)
        return lambda varibs, *args: run(varibs, key, *args)

    def forward(raw):
        obs = inner.preprocess(raw)
        embed = wm.encoder(obs)
        latent, action = wm.initial(batch)
        post, prior = wm.rssm.obs_step(latent, action, embed[:, 0], obs["is_first"][:, 0])
        dream = wm.rssm.img_step(post, obs["action"][:, 0])
        head = lambda net: net(post)  # noqa: E731
        decoded = wm.heads["decoder"](post)[kind]
        return {
            "embed": embed,
            "observe/deter": post["deter"], "observe/posterior": post["logit"], "observe/prior": prior["logit"],
            "imagine/deter": dream["deter"], "imagine/prior": dream["logit"],
            "decoder": decoded._mode, "reward": head(wm.heads["reward"]).logits,
            "cont": head(wm.heads["cont"]).distribution.logits_parameter(), "actor": head(ac.actor).logits_parameter(),
            "critic": head(ac.critics["extr"].net).logits, "reward_mean": head(wm.heads["reward"]).mean(),
        }  # fmt: skip

    def model_loss(raw):
        obs = inner.preprocess(raw)
        loss, (_, outs, _) = wm.loss(obs, wm.initial(batch))
        return loss, {k: v for k, v in outs.items() if k.endswith("_loss")}

    def behaviour_losses(raw):
        """Of dreams that start at what the (unchanged) world model sees."""
        obs = inner.preprocess(raw)
        _, (_, outs, _) = wm.loss(obs, wm.initial(batch))
        context = {**obs, **outs["post"]}
        begin = jax.tree_util.tree_map(lambda x: x.reshape([-1, *x.shape[2:]]), context)
        policy = lambda s: ac.actor(jax.lax.stop_gradient(s)).sample(seed=ninjax.rng())  # noqa: E731
        traj = jax.lax.stop_gradient(wm.imagine(policy, begin, inner.config.imag_horizon))
        actor, _ = ac.loss(traj)
        critic = ac.critics["extr"]
        target = jax.lax.stop_gradient(critic.score(traj)[1])
        value, _ = critic.loss(traj, target)
        return actor, value, target

    results = {}
    outputs, _ = pure(forward)(start, batch_data)
    results |= {f"forward/{k}": v for k, v in outputs.items()}
    (_, terms), _ = pure(model_loss)(start, batch_data)
    results |= {f"terms/{'image_loss' if k == f'{kind}_loss' else k}": v for k, v in terms.items()}

    def gradients(fn, pick, prefix):
        chosen = {k: v for k, v in weights(start).items() if k.startswith(prefix)}
        rest = {k: v for k, v in start.items() if k not in chosen}
        grads = jax.grad(lambda params: pick(pure(fn)({**rest, **params}, batch_data)[0]))(chosen)
        results.update({f"gradients/{k}": v for k, v in grads.items()})

    gradients(model_loss, lambda out: out[0], "agent/wm/")
    (actor, critic, returns), _ = pure(behaviour_losses)(start, batch_data)
    results |= {"behaviour/actor": actor, "behaviour/critic": critic, "behaviour/returns": returns}
    gradients(behaviour_losses, lambda out: out[0], "agent/task_behavior/ac/actor/")
    gradients(behaviour_losses, lambda out: out[1], "agent/task_behavior/critic/net/")

    train = ninjax.jit(ninjax.pure(inner.train))
    state, _ = pure(lambda: inner.train_initial(batch))(start)
    _, after = train(start, key, batch_data, state)
    results |= {f"updated/{k}": v for k, v in weights(after).items()}
    arrays = {f"weights/{k}": v for k, v in weights(start).items()}
    arrays |= {f"data/{k}": v for k, v in batch_data.items()} | {k: np.asarray(v) for k, v in results.items()}
    np.savez_compressed(out, **arrays)
    print(f"{out}: {len(arrays)} arrays, {sum(v.nbytes for v in arrays.values()) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
