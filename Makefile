# Every target makes its own virtual environment; only Python 3.11-3.13 with venv is needed.
PYTHON ?= python3
BIN := .venv/bin

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed  ## the suite and its development tools, with pinned versions, in .venv

demo: .venv/installed  ## the main job end to end: score, SAE, saliency video, report (some 7 minutes on two cores)
	$(BIN)/rl-interp demo

test: .venv/installed  ## the fast tests, on all processors
	$(PYTEST)

test-all: .venv/installed  ## the fast tests and the longer ones
	$(PYTEST) -m 'not slow'

# Tests of one file run in one process, which makes what they share once.
PYTEST = $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

fuzz: .venv/installed  ## alter every file that is read at random, for a minute a loader (SECONDS=10 for less)
	$(BIN)/python tests/fuzz/fuzz.py $(or $(SECONDS),60)

test-slow: .venv/installed  ## the long ones: the whole demo, and longer training
	$(BIN)/python -m pytest -m slow

test-browser: .venv/installed .browser/package/axe.min.js  ## the explorer in Chromium (apt-get install chromium npm)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser/explorer*.py

mutants: .venv/installed  ## make faults on purpose, and list those that no test notices
	$(BIN)/python tests/mutants/run.py

lint: .venv/installed  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --threads 2

kill: .venv/installed  ## every long command is killed at random moments (KILLS=40) and gone on with
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python tests/reliability/kill.py $(or $(KILLS),40) $(or $(SEED),0)

full-disk: .venv/installed  ## every command that writes meets a full disk (DISKS=20); needs the right to mount a tmpfs
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python tests/reliability/full_disk.py $(or $(DISKS),20) $(or $(SEED),0)

bench: .venv/bench-installed  ## measure beside other libraries; writes benchmarks/results/ and docs/performance.md
	$(BIN)/python -m benchmarks.run

parity: .venv/installed .parity/installed  ## DreamerV3 beside the published package (Python 3.11 with JAX, in .parity)
	.parity/bin/python $(PUBLISHED)/reference.py image debug 2 6 .parity/image.npz
	.parity/bin/python $(PUBLISHED)/reference.py vector debug 2 6 .parity/vector.npz
	.parity/bin/python $(PUBLISHED)/reference.py image small 4 16 .parity/small.npz
	.parity/bin/python $(PUBLISHED)/checkpoint.py .parity/checkpoint.ckpt
	$(BIN)/python $(PUBLISHED)/compare.py .parity/image.npz debug
	$(BIN)/python $(PUBLISHED)/compare.py .parity/vector.npz debug
	$(BIN)/python $(PUBLISHED)/compare.py .parity/small.npz small
	rm -rf .parity/run && $(BIN)/rl-interp import dreamerv3 .parity/checkpoint.ckpt --name .parity/run
	$(BIN)/rl-interp evaluate .parity/run --episodes 2

ocatari: .venv/installed .ocatari/installed  ## positions in Atari games beside OCAtari's (in .ocatari, with NumPy 1)
	$(BIN)/python tests/oracles/ocatari/compare.py record .ocatari/recorded.npz
	.ocatari/bin/python tests/oracles/ocatari/positions.py .ocatari/recorded.npz .ocatari/objects.json
	$(BIN)/python tests/oracles/ocatari/compare.py compare .ocatari/recorded.npz .ocatari/objects.json

PUBLISHED := tests/oracles/published_dreamerv3

.PHONY: docs
docs: .venv/docs-installed  ## the documentation as a site, in site/; every link and every name must exist
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:  ## remove the virtual environment
	rm -rf .venv

PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --no-compile -e '.[dev]'
	@# On all processors, and without the packages' own tests; a few files are templates that don't compile.
	$(BIN)/python -m compileall -qq -j 0 -x '/tests/' .venv/lib || true
	@touch $@

.venv/bench-installed: .venv/installed
	$(PIP) -e '.[dev,bench]'
	@touch $@

.venv/docs-installed: .venv/installed
	$(PIP) -e '.[dev,docs]'
	@touch $@

.browser/package/axe.min.js:
	mkdir -p .browser
	cd .browser && npm pack --silent axe-core@4.10.3 && tar xzf axe-core-4.10.3.tgz package/axe.min.js

.parity/installed:
	$(PYTHON) -m venv .parity
	.parity/bin/python -m pip install --quiet --disable-pip-version-check -r $(PUBLISHED)/requirements.txt
	.parity/bin/python -m pip install --quiet --disable-pip-version-check --no-deps dreamerv3==1.5.0
	@touch $@

.ocatari/installed:
	$(PYTHON) -m venv .ocatari
	.ocatari/bin/python -m pip install --quiet --disable-pip-version-check -r tests/oracles/ocatari/requirements.txt
	@touch $@

.PHONY: help install demo test test-all fuzz test-slow test-browser mutants lint kill full-disk bench parity ocatari clean
