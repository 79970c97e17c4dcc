"""Which latents are active in which rows of some activations, and how strongly."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.sae.data import Activations
from rl_interp.sae.model import SAE


@dataclass(frozen=True)
class Encoding:
    """The active latents of N rows, row by row: those of row n are `starts[n] : starts[n + 1]`."""

    starts: NDArray[np.int64]
    """`[N + 1]`."""
    latents: NDArray[np.int32]
    """`[P]`."""
    values: NDArray[np.float32]
    """`[P]`, positive."""
    d_sae: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(self) -> NDArray[np.int32]:
        """`[P]`: the row of each active latent."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.starts))

    def take(self, rows: NDArray[np.integer]) -> "Encoding":
        """The encoding of some of the rows, `[n]`, in the order given."""
        counts = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(counts)])
        pairs = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], counts)
        return Encoding(starts, self.latents[pairs], self.values[pairs], self.d_sae)

    def padded(self) -> tuple[Tensor, Tensor]:
        """What `SAE.decode_sparse` takes: values `[N, K]`, zero where a row has fewer than K active latents, and
        indices `[N, K]`."""
        counts = np.diff(self.starts)
        values = np.zeros((len(self), max(1, int(counts.max(initial=0)))), np.float32)
        indices = np.zeros(values.shape, np.int64)
        filled = np.arange(values.shape[1]) < counts[:, None]
        values[filled], indices[filled] = self.values, self.latents
        return torch.from_numpy(values), torch.from_numpy(indices)

    def density(self) -> NDArray[np.float64]:
        """`[F]`: share of the rows in which each latent fires."""
        return np.bincount(self.latents, minlength=self.d_sae) / len(self)

    def dense(self) -> NDArray[np.float32]:
        """`[N, F]`."""
        out = np.zeros((len(self), self.d_sae), np.float32)
        out[self.rows(), self.latents] = self.values
        return out


@torch.no_grad()
def encode_rows(sae: SAE, data: Activations, rows: NDArray[np.integer], batch: int = 4096) -> Encoding:
    """Encode `rows` of `data`, in order, a batch at a time, on the dictionary's device."""
    counts, latents, values = [np.zeros(1, np.int64)], [], []
    for start in range(0, len(rows), batch):
        x = torch.from_numpy(data.read(rows[start : start + batch]))
        found, at = (each.cpu().numpy() for each in sae.encode_sparse(x.to(sae.W_dec.device)))
        active = found > 0
        counts.append(active.sum(1))
        latents.append(at[active].astype(np.int32))
        values.append(found[active])
    return Encoding(np.cumsum(np.concatenate(counts)), np.concatenate(latents), np.concatenate(values), sae.d_sae)
