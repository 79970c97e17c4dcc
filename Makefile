# Every target makes its own virtual environment; only Python 3.11-3.13 with venv is needed.
PYTHON ?= python3
BIN := .venv/bin

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed  ## the suite and its development tools, with pinned versions, in .venv

demo: .venv/installed  ## the main job end to end: score, SAE, saliency video, report (about 4 minutes)
	$(BIN)/rl-interp demo

test: .venv/installed  ## the fast tests
	$(BIN)/python -m pytest

test-slow: .venv/installed  ## the long ones: the whole demo, and longer training
	$(BIN)/python -m pytest -m slow

lint: .venv/installed  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/bench-installed  ## measure beside other libraries; writes benchmarks/results/ and docs/performance.md
	$(BIN)/python -m benchmarks.run

clean:  ## remove the virtual environment
	rm -rf .venv

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv/bench-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	@touch $@

.PHONY: help install demo test test-slow lint bench clean
