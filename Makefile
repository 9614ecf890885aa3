# `make demo` and `make test` are all a newcomer needs; both install into .venv first. `make help` lists the rest.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
DEMO := demo
# Kernels against their twins, the order of reading, the house itself: about a minute.
QUICK := tests/kernels tests/stream/test_order.py tests/store/test_layout.py tests/events/test_times.py \
	tests/test_house.py tests/test_errors.py tests/test_testing.py tests/train/test_config.py
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

.PHONY: help demo test test-slow quick coverage install lint format wheel clean

help:  ## List what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1 \t/p' Makefile | expand -t 12

install: $(VENV)/installed  ## Install streamfeat and what its tests need into .venv

$(VENV)/installed: pyproject.toml streamfeat/__init__.py train/__init__.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[dev]'
	touch $@

$(VENV)/interpreter: $(VENV)/installed
	$(PIP) -e '.[interpreter]'
	touch $@

demo: install  ## Invent histories, build, train, evaluate, recommend (a few minutes)
	$(BIN)/python cli.py invent $(DEMO)/events.csv --users 1500 --events 90000 --seed 1
	$(BIN)/python cli.py build-shards $(DEMO)/events.csv $(DEMO)/data --window-len 256 --split last:2 --overwrite
	$(BIN)/python cli.py inspect $(DEMO)/data --window 3
	$(BIN)/python cli.py train $(DEMO)/data $(DEMO)/run --dropout 0.1 --batch-tokens 2048 --epochs 12 --overwrite
	$(BIN)/python cli.py inspect $(DEMO)/run
	$(BIN)/python cli.py evaluate $(DEMO)/run
	awk -F, 'NR==2 {user=$$1} NR==1 || $$1==user' $(DEMO)/events.csv > $(DEMO)/one.csv
	$(BIN)/python cli.py recommend $(DEMO)/run --history $(DEMO)/one.csv -k 5

lint: install  ## Linter, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## Sort imports, fix what the linter can fix, format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quick: lint  ## Lint, and the tests that find most slips, in about a minute
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) $(QUICK)

test: lint $(VENV)/interpreter  ## Lint and all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) --durations=10

test-slow: $(VENV)/interpreter  ## The slow tests
	$(BIN)/python -m pytest -q -m slow --durations=10

coverage: $(VENV)/interpreter  ## Run the tests of `make test`, print which lines none of them runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) --cov --cov-report=term-missing:skip-covered

wheel: install  ## Build the wheel and try it in an environment of its own, from another folder
	$(BIN)/python -m pytest -q -m '' tests/test_wheel.py

clean:  ## Remove the demo and caches
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache .coverage
