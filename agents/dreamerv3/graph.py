"""An update as one CUDA graph.

An update of DreamerV3 is some ten thousand small kernels, one after the other through time; launched one by one they
leave an accelerator idle for most of it. Recorded once and replayed, they take one call (PyTorch's manual, "CUDA
Graphs", whole-network capture). What is recorded must be the same operations on the same memory at every update, and
read nothing back, which a test on the CPU holds an update to, as far as its operations tell.

Untested on a GPU.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Tensors = dict[str, Tensor]

_EAGER = 3
"""Calls before the capture: libraries choose their algorithms, optimisers make their state."""


class CUDAGraph:
    """`function` of tensors on an accelerator: as it is for a few calls, from then on its recording.

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
            with torch.cuda.graph(self.graph):  # records, and does not run
                self.outputs = self.function(self.inputs)
        for name, tensor in tensors.items():
            self.inputs[name].copy_(tensor)
        self.graph.replay()
        return {name: tensor.clone() for name, tensor in self.outputs.items()}  # the next replay writes there again

    def _aside(self, tensors: Tensors) -> Tensors:
        """On a stream of its own, as what comes before a capture must be."""
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = self.function(tensors)
        current.wait_stream(self.stream)
        return outputs
