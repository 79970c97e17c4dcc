"""dictionary_learning, its `TopKTrainer` with the learning rate it chooses by itself."""

from dictionary_learning.trainers.top_k import TopKTrainer

from benchmarks.sae_peers.harness import D_IN, LATENTS, K, Peer, measure


def make(samples):
    trainer = TopKTrainer(
        steps=10**6, activation_dim=D_IN, dict_size=LATENTS, k=K, layer=0, lm_name="none", device="cpu"
    )
    count = iter(range(10**9))

    def step(batch):
        trainer.update(next(count), batch)

    setting = f"lr {trainer.lr:.1e}, chosen by itself"
    return Peer(setting, step, lambda x: trainer.ae(x), lambda: trainer.ae.decoder.weight.T)


if __name__ == "__main__":
    measure(make)
