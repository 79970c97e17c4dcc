"""SAELens, its `SAETrainer` with its default learning rate; its sparse activations fail on a CPU.

Where a fit has an end, the rate falls over the last fifth, as in SAELens's tutorials; by default it is constant.
"""

from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

from benchmarks.sae_peers.harness import Peer, Size, measure


def make(samples, size: Size):
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=size.d_in, d_sae=size.latents, k=size.k))
    config = SAETrainerConfig(
        total_training_samples=size.updates * size.batch,
        train_batch_size_samples=size.batch,
        lr=3e-4 * size.factor,
        lr_end=3e-5 * size.factor,
        lr_warm_up_steps=size.warmup or 0,
        lr_decay_steps=0 if size.warmup is None else size.updates // 5,
    )
    trainer = SAETrainer(config, sae, iter(()))

    def step(batch):
        trainer.step(batch)
        trainer.n_training_steps += 1

    schedule = "falling at the end" if config.lr_decay_steps else "constant"
    return Peer(f"lr {config.lr:.1e}, {schedule}", step, sae, lambda: sae.W_dec)


if __name__ == "__main__":
    measure(make)
