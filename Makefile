# Every target sets up what it needs: a fresh machine with Python 3.11 or newer and make is enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help install demo test test-fast check format bench bench-search bench-service postgresql clean

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

# Two halves: what can share the cores, and what starts clusters and kills processes, which needs them for itself.
test: $(VENV)/installed-dev postgresql  ## run every check and the whole test suite
	$(MAKE) check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not ray and not chaos' -n auto --dist loadfile
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'ray or chaos'

test-fast: $(VENV)/installed-dev postgresql  ## run the tests that need neither Ray nor minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not ray and not slow and not chaos' -n auto --dist loadfile

# Debian's package would make a database of its own and start it; the tests start theirs, in a temporary folder.
CREATECLUSTER := /etc/postgresql-common/createcluster.d/mergesearch-tests.conf
postgresql:  ## install the programs of a PostgreSQL server, which the tests start themselves
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && exit 0; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "the tests need PostgreSQL's server programs; install Debian's package 'postgresql', or run this as root" >&2; \
		exit 1; \
	fi; \
	mkdir -p $(dir $(CREATECLUSTER)) && echo "create_main_cluster = false" >$(CREATECLUSTER); \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null; \
	done=$$?; rm -f $(CREATECLUSTER); exit $$done

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

bench-search: $(VENV)/installed-bench  ## go on with the search benchmark for half an hour, write docs/benchmarks.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/search.py --tables --minutes 30

bench-service: $(VENV)/installed-dev postgresql  ## put controller and store under load (half an hour), write docs/benchmarks.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/service.py --json benchmarks/results/service.json
	$(BIN)/python benchmarks/search.py --only-report

clean:  ## remove the environment and everything made
	rm -rf $(VENV) runs exports build *.egg-info
