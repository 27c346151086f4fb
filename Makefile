# Two commands matter: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo dev-up dev-down status test test-all coverage check lint types lock clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

$(READY): requirements.txt pyproject.toml infra/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh infra/setup.sh
	@touch $@

setup: $(READY) ## Make the environment in .venv (locked, hashes checked)

demo: $(READY) ## Run everything once: fleet, ingest, lineage, model, signed release
	@$(BIN)/zenthos demo

dev-up: $(READY) ## Start the embedded stack and leave it running
	@$(BIN)/zenthos up

dev-down: $(READY) ## Stop it
	@$(BIN)/zenthos down

status: $(READY) ## Show the services of the stack
	@$(BIN)/zenthos status

test: $(READY) ## Run the tests that fit in 15 minutes
	$(PYTEST) -q -n $(WORKERS) --dist worksteal -m "not fault and not e2e and not bench"

test-all: $(READY) ## Run every test
	$(PYTEST) -q -n $(WORKERS) --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# The tests of what takes values and returns values; which files that is, pyproject.toml says.
RULES := tests/ml/test_features.py tests/ml/test_dataset.py $(addprefix tests/zenthos_assets/test_, \
	$(addsuffix .py, bronze bronze_checks bronze_codec bronze_shredded bronze_together gold_rules \
	model_transforms order parquet rollup silver_build silver_examine silver_transforms \
	silver_weather transforms)) tests/zenthos_assets/rollouts/test_transforms.py

coverage: $(READY) ## Show that tests reach every line of the transforms
	$(PYTEST) -q -n $(WORKERS) --dist worksteal $(RULES) --cov

# Every test once: those of the transforms run with coverage, the others without.
check: lint types ## What CI runs: ruff, mypy, every test, coverage
	$(PYTEST) -q -n $(WORKERS) --dist worksteal $(addprefix --ignore=,$(RULES))
	@$(MAKE) --no-print-directory coverage

lock: $(READY) ## Resolve requirements.txt again (needs uv on PATH)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-strip-extras --no-emit-index-url --no-header -o requirements.txt

clean: ## Stop the stack, remove all it has stored and the environment
	@if [ -x $(BIN)/zenthos ]; then $(BIN)/zenthos down; fi
	rm -rf $(VENV) .zenthos
