"""dictionary_learning, its `TopKTrainer` with the learning rate it chooses by itself."""

from dictionary_learning.trainers.top_k import TopKTrainer

from benchmarks.sae_peers.harness import Peer, Size, measure


def make(samples, size: Size):
    rate = 2e-4 / (size.latents / 2**14) ** 0.5  # which it would choose by itself
    warmup = {} if size.warmup is None else {"warmup_steps": size.warmup}
    trainer = TopKTrainer(
        steps=size.updates,
        activation_dim=size.d_in,
        dict_size=size.latents,
        k=size.k,
        layer=0,
        lm_name="none",
        device="cpu",
        lr=rate * size.factor,
        **warmup,
    )
    count = iter(range(10**9))

    def step(batch):
        trainer.update(next(count), batch)

    setting = f"lr {trainer.lr:.1e}, {size.factor:.2g} times its own"
    return Peer(setting, step, lambda x: trainer.ae(x), lambda: trainer.ae.decoder.weight.T)


if __name__ == "__main__":
    measure(make)
