"""From the names that another program saved weights under to ours, layer by layer; widths are read off the shapes."""

import reprlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from rl_interp.core.errors import RunError


class Renaming:
    """A file's weights, taken one layer after the other; what nobody took is an error in the end."""

    def __init__(self, weights: Mapping[str, Tensor], source: Path | str, remedy: str):
        self._source, self._remedy = source, remedy
        self.left = dict(weights)
        """What nobody has taken yet."""
        self.found: dict[str, Tensor] = {}
        """The weights by our names."""

    def has(self, name: str) -> bool:
        """Whether the file has a weight of that name that nobody has taken."""
        return name in self.left

    def take(self, name: str, dimensions: int | None = None) -> Tensor:
        """A weight by its name in the file.

        Raises:
            RunError: there is none, or it has other dimensions.
        """
        if name not in self.left:
            raise RunError(f"{self._source} has no weights named {name!r}; {self._remedy}.")
        weight = self.left.pop(name)
        if dimensions is not None and (weight.dim() != dimensions or 0 in weight.shape):
            raise RunError(f"{self._source} has {name!r} of shape {tuple(weight.shape)}; {self._remedy}.")
        return weight

    def layer(self, theirs: str, ours: str, dimensions: int = 2) -> tuple[int, ...]:
        """Take a layer's weight and bias; returns the shape of the weight."""
        weight = self.found[f"{ours}.weight"] = self.take(f"{theirs}.weight", dimensions)
        self.found[f"{ours}.bias"] = self.take(f"{theirs}.bias", 1)
        return tuple(weight.shape)

    def hidden(self, theirs: str, ours: str, start: int = 0, stop: int | None = None) -> tuple[int, ...]:
        """Take the linear layers of an `nn.Sequential` with a nonlinearity after each, from place `start` on.

        Args:
            stop: how many are taken; by default all that there are.

        Returns:
            Their widths.
        """
        widths: list[int] = []
        while self.has(f"{theirs}.{start + 2 * len(widths)}.weight") and len(widths) != stop:
            widths.append(self.layer(f"{theirs}.{start + 2 * len(widths)}", f"{ours}.layers.{len(widths)}")[0])
        return tuple(widths)

    def head(self, theirs: str, ours: str, start: int = 0) -> tuple[tuple[int, ...], int]:
        """Take layers as `hidden` does, of which the last gives the outputs.

        Returns:
            The widths of the others, and the number of outputs.
        """
        count = 0
        while self.has(f"{theirs}.{start + 2 * count}.weight"):
            count += 1
        widths = self.hidden(theirs, ours, start, max(count - 1, 0))
        return widths, self.layer(f"{theirs}.{start + 2 * len(widths)}", f"{ours}.out")[0]

    def convolutions(self, theirs: str, ours: str) -> tuple[tuple[int, ...], int]:
        """Take the three convolutions at places 0, 2 and 4 of an `nn.Sequential`.

        Returns:
            Their channels, and those of the images that they read.
        """
        shapes = [self.layer(f"{theirs}.{2 * i}", f"{ours}.conv{i + 1}", 4) for i in range(3)]
        return tuple(shape[0] for shape in shapes), shapes[0][1]

    def lstms(self, theirs: str, ours: str) -> tuple[int, int]:
        """Take the layers of an `nn.LSTM`, whose two biases are added, as it adds them.

        Returns:
            Their width and number.
        """
        count = width = 0
        while self.has(f"{theirs}.weight_ih_l{count}"):
            self.found[f"{ours}.{count}.weight_ih"] = self.take(f"{theirs}.weight_ih_l{count}", 2)
            hidden = self.found[f"{ours}.{count}.weight_hh"] = self.take(f"{theirs}.weight_hh_l{count}", 2)
            biases = [self.take(f"{theirs}.bias_{part}_l{count}", 1) for part in ("ih", "hh")]
            if biases[0].shape != biases[1].shape:
                raise RunError(f"{self._source} has an LSTM {theirs!r} with biases of two lengths; {self._remedy}.")
            self.found[f"{ours}.{count}.bias"] = biases[0] + biases[1]
            width, count = hidden.shape[1], count + 1
        return width, count

    def drop(self, prefix: str) -> None:
        """Leave out what begins so: copies, and networks that acting does not use."""
        self.left = {name: weight for name, weight in self.left.items() if not name.startswith(prefix)}

    def finish(self, what: str) -> dict[str, Tensor]:
        """The weights by our names.

        Raises:
            RunError: some were not taken; the sentence names the first, which `what` does not have.
        """
        for name in self.left:
            raise RunError(f"{self._source} holds {reprlib.repr(name)}, which {what} does not have; {self._remedy}.")
        return self.found
