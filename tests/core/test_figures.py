import sys

import numpy as np
from PIL import Image

from rl_interp.core.pictures import new_figure, save_figure


def test_a_figure_is_drawn_without_pyplot_and_its_file_has_the_size_asked_for(tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    figure, axes = new_figure(2, 3, width=6, height=4, sharex=True)
    assert axes.shape == (2, 3)
    axes[1, 2].plot([0, 1], [1, 0], color="red")
    path = save_figure(figure, tmp_path / "folder" / "figure.png", dpi=50)
    pixels = np.asarray(Image.open(path))
    assert pixels.shape[:2] == (200, 300)
    assert ((pixels[..., 0] > 200) & (pixels[..., 1] < 50)).any()
    assert ("matplotlib.pyplot" in sys.modules) == before
