#!/usr/bin/env bash
# umap-learn 0.5.12: where transform() puts a new point depends on the other new points in the same call.
#
# Guess:     with random_state set, transform() is a function of the point, as that of scikit-learn's PCA is: a point that
#            is transformed alone, in half of the points or among all of them lands on the same place.
# Behaviour: the same call twice gives the same to the last bit, and another company another place: all new points are
#            moved in one optimisation, which draws its random numbers in turn for all of them. So a page that
#            asks for points as they come does not show them where the picture of all has them.
# Seen:      80 new points of 4 groups in 8 dimensions, layout with a spread of 5.3: again 0.0; six of them one at a time
#            up to 1.4 from where they lie among all; the first half alone, up to 1.0.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check umap-learn==0.5.12 pynndescent==0.7.0 numpy==2.4.6 scikit-learn==1.9.1 numba==0.68.1
cat > "$work/layout.py" <<'PY'
import warnings

import numpy as np

warnings.simplefilter("ignore")
import umap

rng = np.random.default_rng(0)
centres = rng.normal(size=(4, 8)) * 6
known, new = (
    np.concatenate([centre + rng.normal(size=(count, 8)) for centre in centres]).astype(np.float32) for count in (75, 20)
)
layout = umap.UMAP(n_neighbors=10, random_state=0).fit(known)
among_all = layout.transform(new)
again = np.abs(layout.transform(new) - among_all).max()
alone = np.abs(np.concatenate([layout.transform(new[i : i + 1]) for i in range(6)]) - among_all[:6]).max()
half = np.abs(layout.transform(new[:40]) - among_all[:40]).max()
print(f"again {again:.1f}, alone {alone:.1f}, half {half:.1f}, spread {layout.embedding_.std(0).mean():.1f}")
assert again == 0 and alone > 0.3 and half > 0.3, "CHANGED"
print("as stated")
PY
"$work/venv/bin/python" "$work/layout.py"
