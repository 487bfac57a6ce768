# Every target sets up what it needs: a fresh machine with Python 3.11 or newer and make is enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help install demo test test-fast check format bench bench-search clean

help:  ## say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch is installed first and alone, so that the pinned build is taken before anything else asks for one.
$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[test,check]'
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(PIP) --editable '.[bench]'
	@touch $@

install: $(VENV)/installed  ## make .venv with mergesearch in it

demo: $(VENV)/installed  ## make real experts, search their merge, export it (a few minutes)
	$(BIN)/mergesearch demo

test: $(VENV)/installed-dev  ## run every check and the whole test suite
	$(MAKE) check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-fast: $(VENV)/installed-dev  ## run the tests that need neither Ray nor minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not ray and not slow'

check: $(VENV)/installed-dev  ## ruff, mypy --strict, the layer contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-bench  ## run the benchmarks; tables on the screen, JSON in benchmarks/results/
	$(BIN)/python benchmarks/operators.py --json benchmarks/results/operators.json
	$(BIN)/python benchmarks/controller.py --json benchmarks/results/controller.json

bench-search: $(VENV)/installed-bench  ## go on with the search benchmark for half an hour, write docs/benchmarks.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/search.py --tables --minutes 30

clean:  ## remove the environment and everything made
	rm -rf $(VENV) runs exports build *.egg-info
