"""An update as one CUDA graph.

An update of DreamerV3 is some ten thousand small kernels, one after the other through time; launched one by one, they
leave a GPU idle most of the time. Recorded once and replayed, they take one call (PyTorch's manual, "CUDA Graphs",
whole-network capture). Every update must then be the same operations on the same memory, and read nothing back; a test
on the CPU checks that, as far as operations show it.

Untested on a GPU.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Tensors = dict[str, Tensor]

_EAGER = 3
"""Calls before the capture: libraries choose their algorithms, optimisers make their state."""


class CUDAGraph:
    """`function` of tensors on a GPU: called as it is a few times, and from then on replayed.

    Inputs have the same names, shapes and types at every call.
    """

    def __init__(self, function: Callable[[Tensors], Tensors]):
        self.function, self.calls = function, 0
        self.stream = torch.cuda.Stream()
        self.inputs: Tensors = {}
        self.outputs: Tensors = {}
        self.graph = torch.cuda.CUDAGraph()

    def __call__(self, tensors: Tensors) -> Tensors:
        self.calls += 1
        if self.calls <= _EAGER:
            return self._aside(tensors)
        if self.calls == _EAGER + 1:
            self.inputs = {name: tensor.clone() for name, tensor in tensors.items()}
            with torch.cuda.graph(self.graph):  # records without running
                self.outputs = self.function(self.inputs)
        for name, tensor in tensors.items():
            self.inputs[name].copy_(tensor)
        self.graph.replay()
        return {name: tensor.clone() for name, tensor in self.outputs.items()}  # the next replay overwrites them

    def _aside(self, tensors: Tensors) -> Tensors:
        """Call it on a stream of its own, as calls before a capture must be."""
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = self.function(tensors)
        current.wait_stream(self.stream)
        return outputs
