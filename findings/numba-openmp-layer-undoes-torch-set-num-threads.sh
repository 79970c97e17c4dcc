#!/usr/bin/env bash
# numba 0.68.1 with torch 2.13.0, Linux: the first parallel loop that Numba runs undoes torch.set_num_threads(1).
#
# Guess:     torch.set_num_threads(1) holds until it is called again; Numba's own number of threads is another setting.
# Behaviour: where Numba's threading layer is OpenMP (its choice where no TBB is installed), starting its threads sets the
#            number of threads of the OpenMP runtime that both libraries share to the number of cores, whatever
#            OMP_NUM_THREADS or set_num_threads said, and get_num_threads() follows. On a machine with other work every
#            PyTorch operator then waits for threads that have no core (some ten times slower was seen). With the
#            workqueue layer the setting holds. Calling torch.set_num_threads again after the first loop mends it.
# Seen:      2 cores: omp "1 then 2", workqueue "1 then 1".
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
if [ "$(nproc)" -lt 2 ]; then echo "needs two cores"; exit 0; fi
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 torch==2.13.0 numpy==2.3.5
cat > "$work/threads.py" <<'PY'
import numpy as np
import torch
from numba import njit, prange, threading_layer


@njit(parallel=True)
def total(values):
    result = 0.0
    for i in prange(len(values)):
        result += values[i]
    return result


torch.set_num_threads(1)
before = torch.get_num_threads()
total(np.ones(1000))
print(threading_layer(), before, "then", torch.get_num_threads())
PY
omp=$(NUMBA_THREADING_LAYER=omp "$work/venv/bin/python" "$work/threads.py"); echo "$omp"
queue=$(NUMBA_THREADING_LAYER=workqueue "$work/venv/bin/python" "$work/threads.py"); echo "$queue"
if [ "$omp" != "omp 1 then 1" ] && [ "$queue" = "workqueue 1 then 1" ]; then echo "as stated"; else echo "CHANGED"; exit 1; fi
