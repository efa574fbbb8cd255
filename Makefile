# Needs Python 3.11 or newer and make. Everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help env dev demo demo-full check test test-slow test-schedule test-kill check-sd15 bench lint

help:
	@echo "make demo       environment, then the whole pipeline on params.yaml; ends with reports/index.html"
	@echo "make demo-full  the same with all four products and three seeds of each detector: hours"
	@echo "make env        what a run needs, into .venv; make dev: what tests and lint need besides"
	@echo "make check      lint, types, import rule, and the tests that were changed"
	@echo "make test       environment, lint, types, import rule, tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make check-sd15 Stable Diffusion 1.5's architecture (random weights) through the pipeline; memory and time"
	@echo "make bench      how fast the machine is used and how cost grows, as a table; ten minutes on an idle core"
	@echo "make test-schedule  a scheduled run with a Prefect server and a worker of its own, on loopback"
	@echo "make test-kill  kill -9 at random moments, 24 times: nothing lost, doubled or orphaned"

env: .venv.stamp .dvc/config.local
dev: .venv.dev.stamp .dvc/config.local

.venv.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0] + ". Name one with: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

# What tests and `make lint` need besides: a third more.
.venv.dev.stamp: .venv.stamp
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@touch $@

# DVC wants to know whether git is there: a source archive has none.
.dvc/config.local: | .venv.stamp
	@if [ -e .git ]; then touch $@; else $(BIN)/dvc config --local core.no_scm true; fi

# On a CPU two stages side by side, each with half of the cores (flows/pipeline.py: threads_for), are done sooner than one after the other.
JOBS ?= $(if $(shell sh -c 'command -v nvidia-smi'),1,2)
demo: env
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m flows.pipeline --jobs $(JOBS) --accelerators $(JOBS)
	@echo "report: $(CURDIR)/reports/index.html"

demo-full: env
	$(BIN)/cadiff preset demo-full
	$(MAKE) demo

lint: dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	@changed="$$(git diff --name-only --diff-filter=d HEAD -- 'tests/**/test_*.py'; git ls-files --others --exclude-standard -- 'tests/**/test_*.py')"; \
	if [ -n "$$changed" ]; then OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $$changed; fi

# Files side by side, one thread each: what is small gains nothing from a second thread.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-slow: dev
	$(BIN)/python -m pytest -m slow

check-sd15: env
	$(BIN)/python benchmarks/sd15.py .cadiff/sd15
	$(BIN)/python benchmarks/sd15_gradients.py .cadiff/sd15 --dtype float32

bench: env
	$(BIN)/python -m benchmarks.bench

test-schedule: dev
	$(BIN)/python -m pytest -m schedule

test-kill: dev
	$(BIN)/python -m pytest -m kill
