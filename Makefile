# `make` lists the targets. Each sets up what it needs in .venv; Python 3.11 or later is all that has to be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run oncall check test lint infra workflows audit bench load load-compare drill drill-quick rehearse format
.PHONY: dashboards image lock clean
.PHONY: bootstrap init plan apply outputs deploy-objects deploy-database deploy-dns deploy-monitoring smoke
.PHONY: teardown destroy

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/local ## Serve the API on http://127.0.0.1:8080, with a PostgreSQL of its own unless DATABASE_URL names one
	@exec $(BIN)/python -m ops.oncall.recorder

oncall: $(VENV)/oncall ## Dashboards, alarms, logs and traces of what make run serves, on http://127.0.0.1:8081 (ARGS="--help" for more)
	@exec $(BIN)/python -m ops.oncall $(ARGS)

# More than there are cores: many tests wait for a process, a browser or a time-out.
TEST_PROCESSES ?= 4

check: $(VENV)/dev ## Lint, types, layers and the quick tests, in less than a minute (ARGS="-k name" for some)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) -m "not slow" $(ARGS)

test: $(VENV)/dev ## Run the tests, on a real PostgreSQL (ARGS="-k name" for some)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/dev ## Check style, types and that the lock files fit pyproject.toml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/check_locks.py

infra: $(VENV)/dev $(VENV)/audit/installed ## Check terraform/ and k8s/: form, validity, tests, policy; needs terraform and kubectl
	@bash .ci/infra
	@bash .ci/manifests

bench: $(VENV)/dev ## Measure the service beside its peers; needs wrk, and Node.js and Go for some (ARGS="--help" for more)
	@$(BIN)/python -m ops.bench $(ARGS)

load: $(VENV)/load ## Load a service that runs, and say whether it held (ARGS="mixed --rate 200"; ARGS="--help" for more)
	@$(BIN)/python -m ops.load $(or $(ARGS),mixed)

load-compare: $(VENV)/load ## What changed between two load tests, beyond the noise (A=.local/load/… B=.local/load/…)
	$(call given,A)$(call given,B)
	@$(BIN)/python -m ops.load.compare $(A) $(B)

drill: $(VENV)/dev ## Break one thing after the other under load, and say what callers saw (ARGS="--help" for more)
	@$(BIN)/python -m ops.drills $(ARGS)

drill-quick: $(VENV)/dev ## The same in its short form, in less than 5 minutes
	@$(BIN)/python -m ops.drills --quick $(ARGS)

workflows: $(VENV)/dev $(VENV)/audit/installed ## Check .github/workflows, the Dockerfile and .ci
	@bash .ci/workflows

audit: $(VENV)/dev ## Look for what is unsafe in our code, and for known holes in what it is made of; needs the network
	@$(BIN)/python .ci/audit.py

rehearse: $(VENV)/dev $(VENV)/deploy $(VENV)/audit/installed ## Deploy all of it with no AWS account, and destroy it; needs terraform and kubectl
	@$(BIN)/python -m ops.rehearsal $(ARGS)

format: $(VENV)/dev ## Format the code, and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dashboards: $(VENV)/dev ## Make CloudWatch's dashboards anew from ops/cloudwatch/dashboard.py
	$(BIN)/python -m ops.cloudwatch.dashboard

image: ## Build the container image with buildah, and start it once
	bash .ci/image

lock: $(VENV)/dev ## Make the lock files anew from pyproject.toml
	$(BIN)/python .ci/check_locks.py --write

# --- A deployment, in this order; docs/deploying.md has the rest. What Terraform asks for comes from TF_VAR_….

TERRAFORM_FOLDER ?= terraform
REGION ?= us-east-1
PLAN ?= deployment.tfplan
OUTPUTS ?= outputs.json
TERRAFORM = terraform -chdir=$(TERRAFORM_FOLDER)
OPS = $(BIN)/python -m ops
# $(call given,NAME) stops where NAME is empty.
given = $(if $($(1)),,$(error $(1) has to be given: make $@ $(1)=…))

bootstrap: ## Once: the bucket for the state, GitHub's roles (STATE_BUCKET=… REPOSITORY=ORG/REPO)
	$(call given,STATE_BUCKET)$(call given,REPOSITORY)
	$(TERRAFORM)/bootstrap init -input=false
	$(TERRAFORM)/bootstrap apply -input=false -var bucket=$(STATE_BUCKET) -var region=$(REGION) \
	  -var repository=$(REPOSITORY) $(ARGS)

init: ## Find the state, and get Terraform's provider (STATE_BUCKET=…)
	$(call given,STATE_BUCKET)
	$(TERRAFORM) init -input=false -reconfigure -backend-config=bucket=$(STATE_BUCKET) -backend-config=region=$(REGION)

plan: init ## What would change in AWS, kept in deployment.tfplan (STATE_BUCKET=…)
	$(TERRAFORM) plan -input=false -out=$(abspath $(PLAN)) -var region=$(REGION) $(ARGS)

apply: ## Change just that, and keep what Terraform made in outputs.json
	$(TERRAFORM) apply -input=false $(abspath $(PLAN))
	$(TERRAFORM) output -json >$(OUTPUTS)

outputs: ## Keep what Terraform made in outputs.json, once more; init comes first
	$(TERRAFORM) output -json >$(OUTPUTS)

deploy-objects: $(VENV)/deploy ## The cluster's objects (IMAGE=name@sha256:…)
	$(call given,IMAGE)
	$(OPS) apply production --outputs $(OUTPUTS) --image $(IMAGE) $(ARGS)

deploy-database: $(VENV)/deploy ## The database's place and passwords into the cluster, its schema and first rows (IMAGE=…)
	$(call given,IMAGE)
	$(OPS) database --outputs $(OUTPUTS) --image $(IMAGE) $(ARGS)

deploy-dns: $(VENV)/deploy ## The public name, to the load balancer
	$(OPS) dns --outputs $(OUTPUTS) $(ARGS)

deploy-monitoring: $(VENV)/deploy ## What ships logs, metrics and traces, and the control plane's logs (IMAGE=…)
	$(call given,IMAGE)
	$(OPS) apply monitoring --outputs $(OUTPUTS) --image $(IMAGE) $(ARGS)
	$(OPS) cluster-logging --outputs $(OUTPUTS) $(ARGS)

smoke: $(VENV)/deploy ## Ask the three endpoints by their public name
	$(OPS) smoke --outputs $(OUTPUTS) $(ARGS)

teardown: $(VENV)/deploy ## Remove what Terraform did not make, before destroy
	$(OPS) teardown --outputs $(OUTPUTS) $(ARGS)

# The database is opened first, but not where it is gone: it would be made anew.
destroy: ## Destroy all that Terraform made, but for the state and a last snapshot; teardown comes first
	if $(TERRAFORM) state list | grep -qx aws_db_instance.main; then \
	  $(TERRAFORM) apply -input=false -var region=$(REGION) -var is_protected=false -target=aws_db_instance.main $(ARGS); fi
	$(TERRAFORM) destroy -input=false -var region=$(REGION) -var is_protected=false $(ARGS)

clean: ## Remove what the other targets made, but not the data in .local
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .rehearse

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
