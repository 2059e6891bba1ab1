# `make` lists the targets. Each installs what it needs into .venv; only Python 3.11 or later must be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run oncall check test lint infra workflows audit bench cost load load-compare drill drill-quick rehearse
.PHONY: rehearse-cluster cluster format
.PHONY: dashboards image lock clean
.PHONY: bootstrap init plan drift apply outputs sign-image verify-image deploy-monitoring deploy-database deploy-canary
.PHONY: deploy-objects deploy-dns smoke deploy-accept rollback teardown destroy restore remove-database rotate-password

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/local ## Serve the API on http://127.0.0.1:8080, with an embedded PostgreSQL unless DATABASE_URL is set
	@exec $(BIN)/python -m ops.oncall.recorder

oncall: $(VENV)/oncall ## Show dashboards, alarms, logs and traces of `make run` on http://127.0.0.1:8081 (ARGS="--help" for more)
	@exec $(BIN)/python -m ops.oncall $(ARGS)

# More than there are cores: many tests wait for a process, a browser or a time-out. The quick ones do not.
TEST_PROCESSES ?= 5
QUICK_TEST_PROCESSES ?= 2

check: style ## Lint, types, layers and the quick tests, in less than a minute (ARGS="-k name" for some)
	$(BIN)/python -m pytest -n $(QUICK_TEST_PROCESSES) -m "not slow" $(ARGS)

test: $(VENV)/dev $(VENV)/node/installed ## Run all tests but those of infra, on a real PostgreSQL (ARGS="-k name" for some)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m "not deployment" $(ARGS)

.PHONY: style
style: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint: style ## Check style, types, imports, and that the lock files match pyproject.toml
	$(BIN)/python .ci/check_locks.py

infra: $(VENV)/dev $(VENV)/audit/installed ## Check terraform/, k8s/ and what recovers a deployment; needs terraform and kubectl
	@bash .ci/infra
	@bash .ci/manifests
	$(BIN)/python -m pytest -n $(QUICK_TEST_PROCESSES) --dist loadfile -m deployment

bench: $(VENV)/dev ## Benchmark the service and its peers; needs wrk, and Node.js and Go for some peers (ARGS="--help" for more)
	@$(BIN)/python -m ops.bench $(ARGS)

cost: $(VENV)/dev ## Show what a deployment costs a month, from a short run of the service (ARGS="--help" for more)
	@$(BIN)/python -m ops.cost $(ARGS)

load: $(VENV)/load ## Load a running service, and check the objectives (ARGS="mixed --rate 200"; ARGS="--help" for more)
	@$(BIN)/python -m ops.load $(or $(ARGS),mixed)

load-compare: $(VENV)/load ## Show the significant differences between two load tests (A=.local/load/… B=.local/load/…)
	$(call given,A)$(call given,B)
	@$(BIN)/python -m ops.load.compare $(A) $(B)

drill: $(VENV)/dev ## Inject one fault after another under load, and report what clients saw (ARGS="--help" for more)
	@$(BIN)/python -m ops.drills $(ARGS)

drill-quick: $(VENV)/dev ## Run the drills in their short form, in less than 5 minutes
	@$(BIN)/python -m ops.drills --quick $(ARGS)

workflows: $(VENV)/dev $(VENV)/audit/installed ## Check .github, the Dockerfile and .ci
	@bash .ci/workflows

audit: $(VENV)/dev ## Check our code and its packages for vulnerabilities; needs the network
	@$(BIN)/python .ci/audit.py

rehearse: $(VENV)/dev $(VENV)/deploy $(VENV)/audit/installed ## Deploy and destroy everything without an AWS account; needs terraform, kubectl and haproxy
	@$(BIN)/python -m ops.rehearsal $(ARGS)

rehearse-cluster: $(VENV)/dev $(VENV)/deploy ## Rehearse on a real cluster, of kind; needs Docker, kind and wrk as well, on Linux
	@$(BIN)/python -m ops.rehearsal --kind $(ARGS)

cluster: $(VENV)/dev $(VENV)/deploy ## Keep a cluster of kind, with all that is around it, for steps by hand, until Ctrl-C
	@$(BIN)/python -m ops.rehearsal --kind --hold $(ARGS)

format: $(VENV)/dev ## Format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dashboards: $(VENV)/dev ## Generate CloudWatch's dashboards from ops/cloudwatch/dashboard.py
	$(BIN)/python -m ops.cloudwatch.dashboard

image: ## Build the container images with buildah, and start each once
	bash .ci/image

lock: $(VENV)/dev ## Update the lock files from pyproject.toml (ARGS=--upgrade for newer versions)
	$(BIN)/python .ci/check_locks.py --write $(ARGS)

# --- The steps of a deployment, in order; see docs/deploying.md. Terraform's variables come from TF_VAR_….

TERRAFORM_FOLDER ?= terraform
# Names the overlay in k8s/overlays and the state, so that the two belong together.
ENVIRONMENT ?= production
STATE_KEY ?= clients-api/$(if $(filter production,$(ENVIRONMENT)),terraform,$(ENVIRONMENT)).tfstate
REGION ?= us-east-1
STATE_REGION ?= $(REGION)
PLAN ?= deployment.tfplan
OUTPUTS ?= outputs.json
TERRAFORM = terraform -chdir=$(TERRAFORM_FOLDER)
OPS = $(BIN)/python -m ops
# $(call given,NAME) fails if NAME is empty.
given = $(if $($(1)),,$(error $(1) is required: make $@ $(1)=…))

bootstrap: ## Create the bucket for the state and GitHub's roles, once (STATE_BUCKET=… REPOSITORY=ORG/REPO)
	$(call given,STATE_BUCKET)$(call given,REPOSITORY)
	$(TERRAFORM)/bootstrap init -input=false
	$(TERRAFORM)/bootstrap apply -input=false -var bucket=$(STATE_BUCKET) -var region=$(REGION) \
	  -var repository=$(REPOSITORY) $(ARGS)

init: ## Initialise Terraform with its state and provider (STATE_BUCKET=…; ENVIRONMENT=staging for a second environment)
	$(call given,STATE_BUCKET)
	$(TERRAFORM) init -input=false -reconfigure -backend-config=bucket=$(STATE_BUCKET) \
	  -backend-config=key=$(STATE_KEY) -backend-config=region=$(STATE_REGION)

plan: init ## Show what would change in AWS, and save it as deployment.tfplan (STATE_BUCKET=…)
	$(TERRAFORM) plan -input=false -out=$(abspath $(PLAN)) -var region=$(REGION) $(ARGS)

# Locks nothing, because it changes nothing. A failing init is reported, too.
drift: $(VENV)/deploy ## Report what differs in AWS from this code; on GitHub, in an issue (STATE_BUCKET=…)
	@$(BIN)/python -m ops.deploy.drift $(ENVIRONMENT) -- sh -c '$(MAKE) --no-print-directory init || exit 1; \
	  $(TERRAFORM) plan -input=false -no-color -lock=false -detailed-exitcode -var region=$(REGION) $(ARGS)'

apply: $(VENV)/deploy ## Apply the saved plan, write Terraform's outputs to outputs.json, protect the cluster from deletion
	$(TERRAFORM) apply -input=false $(abspath $(PLAN))
	$(TERRAFORM) output -json >$(OUTPUTS)
	$(OPS) protect --outputs $(OUTPUTS)

outputs: ## Write outputs.json again; needs init before
	$(TERRAFORM) output -json >$(OUTPUTS)

sign-image: ## Sign the image with cosign, as the GitHub job that runs this (IMAGE=name@sha256:…)
	$(call given,IMAGE)
	cosign sign --yes $(IMAGE)

verify-image: ## Check with cosign that a GitHub workflow signed the image (IMAGE=name@sha256:… SIGNER=https://github.com/…)
	$(call given,IMAGE)$(call given,SIGNER)
	cosign verify --certificate-identity $(SIGNER) \
	  --certificate-oidc-issuer https://token.actions.githubusercontent.com $(IMAGE)

deploy-monitoring: $(VENV)/deploy ## Apply what ships logs, metrics and traces; turn on the control plane's logs (IMAGE=…)
	$(call given,IMAGE)
	$(OPS) apply monitoring --outputs $(OUTPUTS) --image $(IMAGE) $(ARGS)
	$(OPS) cluster-logging --outputs $(OUTPUTS) $(ARGS)

deploy-database: $(VENV)/deploy ## Write the database's Secrets into the cluster, migrate and seed the database (IMAGE=…)
	$(call given,IMAGE)
	$(OPS) database --environment $(ENVIRONMENT) --outputs $(OUTPUTS) --image $(IMAGE) $(ARGS)

deploy-canary: $(VENV)/deploy ## Compare one pod of the image with those of the release that runs (IMAGE=…)
	$(call given,IMAGE)
	$(OPS) canary --environment $(ENVIRONMENT) --outputs $(OUTPUTS) --image $(IMAGE) $(ARGS)

deploy-objects: $(VENV)/deploy ## Apply the cluster's objects, and wait for their pods (IMAGE=name@sha256:…)
	$(call given,IMAGE)
	$(OPS) apply $(ENVIRONMENT) --outputs $(OUTPUTS) --image $(IMAGE) $(ARGS)

deploy-dns: $(VENV)/deploy ## Point the public name to the load balancer
	$(OPS) dns --outputs $(OUTPUTS) $(ARGS)

smoke: $(VENV)/deploy ## Test the three endpoints by the public name, and change nothing
	$(OPS) smoke --outputs $(OUTPUTS) $(ARGS)

deploy-accept: $(VENV)/deploy ## Watch the release's first minutes, and keep it as the one to go back to (IMAGE=…)
	$(call given,IMAGE)
	$(OPS) accept --environment $(ENVIRONMENT) --outputs $(OUTPUTS) --image $(IMAGE) $(ARGS)

rollback: $(VENV)/deploy ## Bring the last good release back
	$(OPS) rollback --outputs $(OUTPUTS) $(ARGS)

# Terraform then forgets the old database and takes the new one over; the next plan and apply are for the alarms.
DATABASE_LOGS = postgresql upgrade
restore: $(VENV)/deploy ## Restore the database as DATABASE, move the service to it (DATABASE=… IMAGE=…; TIME=… or SNAPSHOT=…)
	$(call given,DATABASE)$(call given,IMAGE)
	$(TERRAFORM) state list >/dev/null  # fails before anything is changed
	$(OPS) restore $(DATABASE) --outputs $(OUTPUTS) --image $(IMAGE) \
	  $(addprefix --time=,$(TIME)) $(addprefix --snapshot=,$(SNAPSHOT)) $(addprefix --zone=,$(ZONE)) $(ARGS)
	$(call adopt,aws_db_instance.main,$(DATABASE))
	$(foreach log,$(DATABASE_LOGS),\
	  $(call adopt,aws_cloudwatch_log_group.database["$(log)"],/aws/rds/instance/$(DATABASE)/$(log)) &&) true

# $(call adopt,ADDRESS,ID) makes Terraform manage this resource of AWS at the address.
adopt = { ! $(TERRAFORM) state list | grep -qxF '$(1)' || $(TERRAFORM) state rm '$(1)'; } && \
  $(TERRAFORM) import -input=false -var region=$(REGION) '$(1)' '$(2)'

remove-database: $(VENV)/deploy ## Delete a database that the service has left, with a final snapshot (DATABASE=…)
	$(call given,DATABASE)
	$(OPS) remove-database $(DATABASE) --outputs $(OUTPUTS) $(ARGS)

rotate-password: $(VENV)/deploy ## Give the service a new database password, without a refused request
	$(OPS) rotate-password --outputs $(OUTPUTS) $(ARGS)

teardown: $(VENV)/deploy ## Remove what Terraform did not create, before destroy
	$(OPS) teardown --outputs $(OUTPUTS) $(ARGS)

# Between make restore and the next apply, Terraform would keep neither a final snapshot nor the backups.
destroy: ## Destroy everything that Terraform created, except the state and a final snapshot; needs teardown before
	@if $(TERRAFORM) state show -no-color aws_db_instance.main 2>/dev/null | grep -q 'skip_final_snapshot *= true'; then \
	  echo 'error: the restored database would go without a final snapshot: make plan apply teardown before' >&2; exit 1; fi
	$(TERRAFORM) destroy -input=false -var region=$(REGION) $(ARGS)

clean: ## Remove the files of the other targets, except the data in .local
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .rehearse

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; use a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "error: $(PYTHON) has no venv module (on Debian: apt install python3-venv)" >&2; exit 1; }

# Tools that need other versions of libraries than the rest.
$(VENV)/audit/installed: requirements/audit.txt | $(VENV)/bin/python
	@echo "Installing the packages of $< ..."
	@$(BIN)/python -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

# Node.js tools for the OpenAPI description: linters and a generator of clients. Without npm, their tests are skipped.
$(VENV)/node/installed: tests/node/package-lock.json | $(VENV)/bin/python
	@command -v npm >/dev/null || exit 0; \
	  echo "Installing the packages of $< ..."; \
	  mkdir -p $(@D) && cp $(<D)/package.json $< $(@D) && \
	  npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --silent && touch $@

# Dependencies come from the lock files, with their hashes verified. The target is a stamp file.
$(VENV)/%: requirements/%.txt | $(VENV)/bin/python
	@echo "Installing the packages of $< ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@
