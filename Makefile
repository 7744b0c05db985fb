# Every target sets up .venv first when there is none, so a fresh clone needs one command.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3,$(shell command -v $(p) 2>/dev/null)))
# Torch comes first and as one exact release: with a range pip moves to the newest build that it sees,
# often a CUDA build of several gigabytes, even where a CPU build of this release is at hand. To choose
# the build, name its index once (.../whl/cpu, or for a GPU .../whl/cu130):
#   make setup TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu'
# A torch that stands in .venv already and satisfies pyproject.toml can be kept: make setup TORCH=torch
TORCH ?= torch==2.13.0
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test check swarm long netlab bench

help:
	@echo "make demo    a whole swarm on this machine: a worker is killed, another one joins"
	@echo "make test    lint, types and all tests but the long ones"
	@echo "make check   lint and types only"
	@echo "make swarm   only the tests with real processes, the long ones too"
	@echo "make long    the tests that make test leaves out: more seeds, and runs of a minute"
	@echo "make netlab  only the tests on hosts made of network namespaces (root; two minutes)"
	@echo "make bench   the benchmarks; no assertions on time"

setup: .venv/.installed

# Most of what is installed is never imported, so it is compiled when it is: that halves the time here.
.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile $(TORCH)
	$(BIN)/python -m pip install --quiet --no-compile -e '.[dev]'
	touch $@

demo: .venv/.installed
	$(BIN)/swarmnet demo

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One thread each: tests that share the cores would wait for each other's threads.
test: export OMP_NUM_THREADS = 1
test: check
	$(BIN)/python -m pytest -n auto -m 'not long' tests/unit tests/contracts
	$(BIN)/python -m pytest -m 'not long' tests/swarm

swarm: export OMP_NUM_THREADS = 1
swarm: .venv/.installed
	$(BIN)/python -m pytest tests/swarm

long: export OMP_NUM_THREADS = 1
long: .venv/.installed
	$(BIN)/python -m pytest -n auto -m long tests/unit tests/contracts
	$(BIN)/python -m pytest -m long tests/swarm

netlab: .venv/.installed
	$(BIN)/python -m pytest tests/netlab

bench: .venv/.installed
	$(BIN)/python tests/bench/averaging.py
	$(BIN)/python tests/bench/pays.py
