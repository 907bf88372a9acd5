# One interpreter, one set of pinned versions. Every target makes .venv first where it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-slow bench lint types contracts dist wheel-check clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,embedded,video,carla,mujoco]'
	@touch $@

demo: $(STAMP)
	$(BIN)/lgdrl demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

bench: $(STAMP)
	$(BIN)/lgdrl bench sim --scenario lane-change,highway-v0,highway-fast-v0

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

# The sdist, and the wheel made of it.
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation

# The wheel in a fresh environment and an empty folder.
wheel-check: dist
	.ci/wheel-check

clean:
	rm -rf $(VENV) dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
