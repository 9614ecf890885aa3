# `make demo` and `make test` are all a newcomer needs; both install into .venv first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: demo test test-slow install lint clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml streamfeat/__init__.py train/__init__.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

$(VENV)/interpreter: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[interpreter]'
	touch $@

demo: install
	$(BIN)/python cli.py invent $(DEMO)/events.csv --users 1500 --events 90000 --seed 1
	$(BIN)/python cli.py build-shards $(DEMO)/events.csv $(DEMO)/data --window-len 256 --split users:0.1 --overwrite
	$(BIN)/python cli.py inspect $(DEMO)/data --window 3
	$(BIN)/python cli.py train $(DEMO)/data --run $(DEMO)/run --preset tiny --dropout 0.1 --learning-rate 4e-3 --batch-tokens 2048 --epochs 12 --validate-every 200 --overwrite
	$(BIN)/python cli.py inspect $(DEMO)/run
	$(BIN)/python cli.py evaluate $(DEMO)/run
	awk -F, 'NR==2 {user=$$1} NR==1 || $$1==user' $(DEMO)/events.csv > $(DEMO)/one.csv
	$(BIN)/python cli.py recommend $(DEMO)/run --history $(DEMO)/one.csv -k 5

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint $(VENV)/interpreter
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

test-slow: $(VENV)/interpreter
	$(BIN)/python -m pytest -q -m slow

clean:
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache
