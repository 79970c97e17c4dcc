"""One number of threads for PyTorch's operators and for loops compiled by Numba, which share a pool."""

import torch
from numba import config, set_num_threads


def share_threads(most: int | None = None) -> int:
    """Have the compiled loops that follow use as many threads as PyTorch does, or at most `most`; returns how many.

    When Numba starts its threads, OpenMP's own number becomes that of the cores, and PyTorch's with it, whatever was
    asked for: beside another busy process every operator then waits for a thread that has no core.
    """
    wanted = torch.get_num_threads()
    threads = min(wanted, config.NUMBA_NUM_THREADS)  # pyright: ignore[reportAttributeAccessIssue]
    threads = threads if most is None else min(threads, most)
    set_num_threads(threads)
    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)
    return threads
