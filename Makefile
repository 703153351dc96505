# Targets for a fresh clone: `make demo` runs the demo, `make test` the checks. Python 3.11 or later.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := imgalign reward_models ui

SOAK ?= 50
FAULTS ?= faults.json

export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help install demo test coverage soak bench ui docs hooks clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## Install, then run the demo: rank, fit, align, compare; ARGS="--out demo2 --seed 1"
	$(BIN)/imgalign demo $(ARGS)

ui: $(VENV)/installed ## Install, then serve the app; ARGS="--port 8000"
	$(BIN)/imgalign ui $(ARGS)

install: $(VENV)/installed-test ## Install what tests need, and run nothing

test: $(VENV)/installed-test ## Install what tests need, then lint, check types and test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# mypy keeps one core busy for minutes: beside the tests, behind them, and said at their end.
	nice $(BIN)/mypy >$(VENV)/mypy.log 2>&1 & types=$$!; trap 'kill $$types 2>/dev/null' EXIT INT TERM; \
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder; tests=$$?; \
	wait $$types; typed=$$?; cat $(VENV)/mypy.log; exit $$((tests || typed))

coverage: $(VENV)/installed-test ## Run the tests and print the lines and branches that none of them reached; ARGS="tests/core"
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term-missing $(ARGS)

docs: $(VENV)/installed-docs ## Build the documentation as a site into site/; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html"

hooks: $(VENV)/installed-hooks ## Check each commit before it is made: ruff and mypy on what it changes
	$(BIN)/pre-commit install

soak: $(VENV)/installed-test ## Inject faults for hours and count them; may be stopped, and goes on; SOAK=50 FAULTS=faults.json
	IMGALIGN_SOAK=$(SOAK) IMGALIGN_SOAK_RESULTS=$(FAULTS) $(BIN)/python -m pytest tests/faults

bench: $(VENV)/installed-test ## Every table of docs/benchmarks.md in under an hour, beside what is recorded; ARGS="--only ceiling"
	$(BIN)/python benchmarks/bench.py $(ARGS)

clean: ## Remove the environment, caches and builds; demos, runs and rankings stay
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: imgalign needs Python 3.11 or later, $(PYTHON) is older; make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e ".[test]"
	@touch $@ $(VENV)/installed

$(VENV)/installed-docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	@touch $@ $(VENV)/installed

$(VENV)/installed-hooks: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e ".[test,hooks]"
	@touch $@ $(VENV)/installed
