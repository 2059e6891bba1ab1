# `make` lists the targets. Each sets up what it needs in .venv; Python 3.11 or later is all that has to be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test lint infra bench format image lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/local ## Serve the API on http://127.0.0.1:8080, with a PostgreSQL of its own unless DATABASE_URL names one
	@exec $(BIN)/python -m svc serve

test: $(VENV)/dev ## Run the tests, on a real PostgreSQL (ARGS="-k name" for some)
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/dev ## Check style, types and that the lock files fit pyproject.toml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/check_locks.py

infra: $(VENV)/audit/installed ## Check terraform/: form, validity, its tests, policy; needs terraform
	@bash .ci/infra

bench: $(VENV)/dev ## Measure the service beside its peers; needs wrk, and Node.js and Go for some (ARGS="--help" for more)
	@$(BIN)/python -m ops.bench $(ARGS)

format: $(VENV)/dev ## Format the code, and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

image: ## Build the container image with buildah, and start it once
	bash .ci/image

lock: $(VENV)/dev ## Make the lock files anew from pyproject.toml
	$(BIN)/python .ci/check_locks.py --write

clean: ## Remove what the other targets made, but not the data in .local
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "error: $(PYTHON) has no venv module (on Debian: apt install python3-venv)" >&2; exit 1; }

# Tools that want other versions of libraries than the rest does.
$(VENV)/audit/installed: requirements/audit.txt | $(VENV)/bin/python
	@echo "Installing what $< lists ..."
	@$(BIN)/python -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

# Dependencies come from the lock files, each checked against its hash. A stamp says which ones are installed.
$(VENV)/%: requirements/%.txt | $(VENV)/bin/python
	@echo "Installing what $< lists ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@
