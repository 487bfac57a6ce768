# Every target sets up what it needs: a fresh machine with Python 3.11 or newer and make is enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help install demo test test-fast check format bench bench-search bench-service bench-web postgresql chromium clean

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

# Two lanes at once. In front: what starts clusters and kills processes, which mostly waits and has deadlines, one test
# after the other. Behind, with what it leaves of the cores: all the rest, whose output comes at the end.
BEHIND := build/tests-behind.log
test: $(VENV)/installed-dev postgresql chromium  ## run every check and the whole test suite
	$(MAKE) check
	@mkdir -p $(dir $(BEHIND)); export OMP_NUM_THREADS=1; \
	env --default-signal=INT nice -n 10 $(BIN)/python -m pytest -m 'not ray and not chaos' -n 2 --dist loadfile >$(BEHIND) 2>&1 & behind=$$!; \
	trap 'kill $$behind' INT TERM; \
	$(BIN)/python -m pytest -m 'ray or chaos'; front=$$?; \
	wait $$behind; rest=$$?; cat $(BEHIND); exit $$((front | rest))

test-fast: $(VENV)/installed-dev postgresql chromium  ## run the tests that need neither Ray nor minutes
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

# With a font, so that what it draws has letters.
chromium:  ## install the browser that the tests walk through the web pages with
	@command -v chromium >/dev/null && exit 0; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "the tests need the browser Chromium; install Debian's packages 'chromium' and 'fonts-liberation', or run this as root" >&2; \
		exit 1; \
	fi; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		chromium fonts-liberation >/dev/null || { echo "Debian's package 'chromium' could not be installed; apt-get said why" >&2; exit 1; }

check: $(VENV)/installed-dev  ## ruff, mypy --strict, the layer contract, bandit, pip-audit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive mergesearch --configfile .bandit.yaml 2>/dev/null  # findings are said on stdout
	$(BIN)/python .ci/audit.py

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

bench-web: $(VENV)/installed-dev chromium  ## measure in a browser how soon the pages of a big study stand
	$(BIN)/python benchmarks/web_pages.py --json benchmarks/results/web_pages.json

clean:  ## remove the environment and everything made
	rm -rf $(VENV) runs exports build *.egg-info
