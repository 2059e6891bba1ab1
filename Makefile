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

# The lines with ## describe the targets, and those with ##@ begin their groups.
help:
	@awk -F ':.*## ' '/^##@ / { printf "%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'ARGS=--help shows the options of oncall, load, bench, cost, drill and rehearse.'
	@echo 'Where a command fails, make exits with 2; docs/README.md has the exit status of each command.'

##@ Run

run: $(VENV)/local ## Serve the API on http://127.0.0.1:8080, with a PostgreSQL of its own
	@exec $(BIN)/python -m ops.oncall.recorder

oncall: $(VENV)/oncall ## Show alarms, dashboards, logs and traces of make run, on port 8081
	@exec $(BIN)/python -m ops.oncall $(ARGS)

##@ Test

# More than there are cores: many tests wait for a process, a browser or a time-out. The quick ones do not.
TEST_PROCESSES ?= 5
QUICK_TEST_PROCESSES ?= 2

check: style ## Lint, types, layers and the quick tests, in less than a minute
	$(BIN)/python -m pytest -n $(QUICK_TEST_PROCESSES) -m "not slow" $(ARGS)

test: $(VENV)/dev $(VENV)/node/installed ## Run all tests but those of infra, on a real PostgreSQL
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m "not deployment" $(ARGS)

.PHONY: style
style: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint: style $(VENV)/tools ## Check style, types, layers and lock files
	$(BIN)/python .ci/check_locks.py

format: $(VENV)/dev ## Format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

infra: $(VENV)/dev $(VENV)/audit/installed ## Check terraform/, k8s/ and recovery; needs terraform and kubectl
	@bash .ci/infra
	@bash .ci/manifests
	$(BIN)/python -m pytest -n $(QUICK_TEST_PROCESSES) --dist loadfile -m deployment

workflows: $(VENV)/tools $(VENV)/audit/installed ## Check .github, the Dockerfile and .ci
	@bash .ci/workflows

audit: $(VENV)/dev ## Look for known vulnerabilities in code and packages
	@$(BIN)/python .ci/audit.py

##@ Measure

load: $(VENV)/load ## Load the service, and check the objectives (ARGS="mixed --rate 200")
	@$(BIN)/python -m ops.load $(or $(ARGS),mixed)

load-compare: $(VENV)/load ## Show what differs between two load tests (A=.local/load/… B=…)
	$(call given,A)$(call given,B)
	@$(BIN)/python -m ops.load.compare $(A) $(B)

bench: $(VENV)/dev ## Measure the service beside its peers; needs wrk (ARGS=--quick)
	@$(BIN)/python -m ops.bench $(ARGS)

cost: $(VENV)/dev ## Show what a deployment costs a month, from a short run
	@$(BIN)/python -m ops.cost $(ARGS)

drill: $(VENV)/dev ## Inject one fault after another under load (ARGS=NAME for one)
	@$(BIN)/python -m ops.drills $(ARGS)

drill-quick: $(VENV)/dev ## Run all drills in their short form, in less than 5 minutes
	@$(BIN)/python -m ops.drills --quick $(ARGS)

##@ Rehearse a deployment without an AWS account; needs terraform, kubectl, haproxy

rehearse: $(VENV)/dev $(VENV)/deploy $(VENV)/audit/installed ## Deploy, upgrade, restore, destroy
	@$(BIN)/python -m ops.rehearsal $(ARGS)

rehearse-cluster: $(VENV)/dev $(VENV)/deploy ## Rehearse on a cluster of kind; needs Docker, kind and wrk too
	@$(BIN)/python -m ops.rehearsal --kind $(ARGS)

cluster: $(VENV)/dev $(VENV)/deploy ## Keep a cluster of kind until Ctrl-C, for steps by hand
	@$(BIN)/python -m ops.rehearsal --kind --hold $(ARGS)

##@ Deploy, in this order

# Terraform's variables come from TF_VAR_….
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

bootstrap: ## Create state and GitHub's roles (STATE_BUCKET=… REPOSITORY=ORG/REPO)
	$(call given,STATE_BUCKET)$(call given,REPOSITORY)
	$(TERRAFORM)/bootstrap init -input=false
	$(TERRAFORM)/bootstrap apply -input=false -var bucket=$(STATE_BUCKET) -var region=$(REGION) \
	  -var repository=$(REPOSITORY) $(ARGS)

init: ## Initialise Terraform (STATE_BUCKET=…; ENVIRONMENT=staging for another)
	$(call given,STATE_BUCKET)
	$(TERRAFORM) init -input=false -reconfigure -backend-config=bucket=$(STATE_BUCKET) \
	  -backend-config=key=$(STATE_KEY) -backend-config=region=$(STATE_REGION)

plan: init ## Show what would change in AWS, and save it (STATE_BUCKET=…)
	$(TERRAFORM) plan -input=false -out=$(abspath $(PLAN)) -var region=$(REGION) $(ARGS)

apply: $(VENV)/deploy ## Apply the saved plan, write outputs.json, protect the cluster
	$(TERRAFORM) apply -input=false $(abspath $(PLAN))
	$(TERRAFORM) output -json >$(OUTPUTS)
	$(OPS) protect --outputs $(OUTPUTS)

outputs: ## Write outputs.json again; needs init before
	$(TERRAFORM) output -json >$(OUTPUTS)

sign-image: ## Sign the image with cosign, on GitHub (IMAGE=NAME@sha256:…)
	$(call given,IMAGE)
	cosign sign --yes $(IMAGE)

verify-image: ## Check that a GitHub workflow signed the image (IMAGE=… SIGNER=https://…)
	$(call given,IMAGE)$(call given,SIGNER)
	cosign verify --certificate-identity $(SIGNER) \
	  --certificate-oidc-issuer https://token.actions.githubusercontent.com $(IMAGE)

deploy-monitoring: $(VENV)/deploy ## Apply what ships logs, metrics and traces (IMAGE=…)
	$(call given,IMAGE)
	$(OPS) apply monitoring --outputs $(OUTPUTS) --image $(IMAGE) $(ARGS)
	$(OPS) cluster-logging --outputs $(OUTPUTS) $(ARGS)

deploy-database: $(VENV)/deploy ## Write the database's Secrets, migrate, seed (IMAGE=…)
	$(call given,IMAGE)
	$(OPS) database --environment $(ENVIRONMENT) --outputs $(OUTPUTS) --image $(IMAGE) $(ARGS)

deploy-canary: $(VENV)/deploy ## Compare one pod of the image with those that run (IMAGE=…)
	$(call given,IMAGE)
	$(OPS) canary --environment $(ENVIRONMENT) --outputs $(OUTPUTS) --image $(IMAGE) $(ARGS)

deploy-objects: $(VENV)/deploy ## Apply the cluster's objects, and wait for their pods (IMAGE=…)
	$(call given,IMAGE)
	$(OPS) apply $(ENVIRONMENT) --outputs $(OUTPUTS) --image $(IMAGE) $(ARGS)

deploy-dns: $(VENV)/deploy ## Point the public name to the load balancer
	$(OPS) dns --outputs $(OUTPUTS) $(ARGS)

smoke: $(VENV)/deploy ## Test the endpoints by the public name, and change nothing
	$(OPS) smoke --outputs $(OUTPUTS) $(ARGS)

deploy-accept: $(VENV)/deploy ## Watch its first minutes, and keep it as the last good release (IMAGE=…)
	$(call given,IMAGE)
	$(OPS) accept --environment $(ENVIRONMENT) --outputs $(OUTPUTS) --image $(IMAGE) $(ARGS)

##@ Operate a deployment

rollback: $(VENV)/deploy ## Bring the last good release back
	$(OPS) rollback --outputs $(OUTPUTS) $(ARGS)

# Locks nothing, because it changes nothing. A failing init is reported, too.
drift: $(VENV)/deploy ## Report what differs in AWS from this code (STATE_BUCKET=…)
	@$(BIN)/python -m ops.deploy.drift $(ENVIRONMENT) -- sh -c '$(MAKE) --no-print-directory init || exit 1; \
	  $(TERRAFORM) plan -input=false -no-color -lock=false -detailed-exitcode -var region=$(REGION) $(ARGS)'

# Terraform then forgets the old database and takes the new one over; the next plan and apply are for the alarms.
DATABASE_LOGS = postgresql upgrade
restore: $(VENV)/deploy ## Restore the database (DATABASE=… IMAGE=…; TIME=… or SNAPSHOT=…)
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

remove-database: $(VENV)/deploy ## Delete a database that the service has left (DATABASE=…)
	$(call given,DATABASE)
	$(OPS) remove-database $(DATABASE) --outputs $(OUTPUTS) $(ARGS)

rotate-password: $(VENV)/deploy ## Give the service a new database password, without a refused request
	$(OPS) rotate-password --outputs $(OUTPUTS) $(ARGS)

teardown: $(VENV)/deploy ## Remove what Terraform did not create; before destroy
	$(OPS) teardown --outputs $(OUTPUTS) $(ARGS)

# Between make restore and the next apply, Terraform would keep neither a final snapshot nor the backups.
destroy: ## Destroy what Terraform created, except its state; after teardown
	@if $(TERRAFORM) state show -no-color aws_db_instance.main 2>/dev/null | grep -q 'skip_final_snapshot *= true'; then \
	  echo 'error: the restored database would go without a final snapshot: make plan apply teardown before' >&2; exit 1; fi
	$(TERRAFORM) destroy -input=false -var region=$(REGION) $(ARGS)

##@ Maintain

dashboards: $(VENV)/dev ## Generate CloudWatch's dashboards from ops/cloudwatch/dashboard.py
	$(BIN)/python -m ops.cloudwatch.dashboard

image: ## Build the container images with buildah, and start each once
	bash .ci/image

lock: $(VENV)/tools ## Update the lock files from pyproject.toml (ARGS=--upgrade for newer ones)
	$(BIN)/python .ci/check_locks.py --write $(ARGS)

clean: ## Remove the files of the other targets, except the data in .local
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .rehearse

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; use a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "error: $(PYTHON) has no venv module (on Debian: apt install python3-venv)" >&2; exit 1; }

# What the packages of each lock file take in MB: to download, and on disk. Some of them may be there already.
MB_local := 50 180
MB_oncall := 50 200
MB_load := 90 360
MB_deploy := 20 30
MB_tools := 40 130
MB_dev := 250 920
MB_audit := 50 250
MB_node := 30 130

# $(call installing,NAME) is a message. On a terminal, pip and npm show their progress.
installing = Installing the packages of $<: up to $(word 1,$(MB_$(1))) MB to download, $(word 2,$(MB_$(1))) MB on disk
PIP_INSTALL = -m pip install $$quiet --disable-pip-version-check --require-hashes --no-deps

# Tools that need other versions of libraries than the rest.
$(VENV)/audit/installed: requirements/audit.txt | $(VENV)/bin/python
	@echo "$(call installing,audit)"
	@$(BIN)/python -m venv $(VENV)/audit
	@[ -t 1 ] || quiet=--quiet; $(VENV)/audit/bin/python $(PIP_INSTALL) -r $<
	@touch $@

# Node.js tools for the OpenAPI description: linters and a generator of clients. Without npm, their tests are skipped.
$(VENV)/node/installed: tests/node/package-lock.json | $(VENV)/bin/python
	@command -v npm >/dev/null || exit 0; [ -t 1 ] || quiet=--silent; \
	  echo "$(call installing,node)"; \
	  mkdir -p $(@D) && cp $(<D)/package.json $< $(@D) && \
	  npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund $$quiet && touch $@

# Dependencies come from the lock files, with their hashes verified. The target is a stamp file.
$(VENV)/%: requirements/%.txt | $(VENV)/bin/python
	@echo "$(call installing,$*)"
	@[ -t 1 ] || quiet=--quiet; $(BIN)/python $(PIP_INSTALL) -r $<
	@touch $@
