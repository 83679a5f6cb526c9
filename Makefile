# Every target sets up what it needs. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := PYTHONPATH=tests HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 $(BIN)/python
READY := $(VENV)/.ready
# A run starts dozens of processes that import torch: compiled once, not each time, whatever the caller's shell says.
export PYTHONDONTWRITEBYTECODE :=
# One more than cores: tests wait for servers as often as they compute. Control plane and S3 server are shared by them.
WORKERS ?= $(shell expr $$(nproc) + 1)
ARGS ?=
# Where uv draws no bar, since nobody looks: a line now and then. It waits without a child, which would outlive it.
TELL = if [ ! -t 2 ]; then { exec 9<> <(:); while :; do read -rt 15 -u 9; echo "setup: still installing, $$SECONDS s"; done; } & trap "kill $$!" EXIT; fi;

.PHONY: help setup tools node-tools static check chart test test-unit test-node test-images test-docs demo e2e e2e-kind bench lock clean format images node-images docs

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/' | expand -t 14

setup: $(READY) ## install the hash-locked dependencies and this project into .venv

$(BIN)/uv: requirements-setup.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: Python 3.11 or newer is needed; name it: make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "setup: install Debian's package python3-venv, then call make again"; exit 1; }
	@echo "setup: $(VENV) is made; installing the installer"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps -r requirements-setup.lock
	@touch $@

$(READY): $(BIN)/uv requirements.lock pyproject.toml
	@echo "setup: installing the packages of requirements.lock into $(VENV) (about 5 GB, once)"
	@$(TELL) VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --require-hashes --no-deps -r requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

tools: $(READY) ## build the control plane and the S3 server (cached outside the tree)
	@$(RUN) -m cluster.tools build etcd kube-apiserver kube-controller-manager versitygw helm verdict

node-tools: $(READY) ## what a real node is made of: our builds, and Debian's packages by apt-get
	@$(RUN) -m cluster.node tools --or-skip

static: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@! grep -n '://' $(LOCKS) || { echo "static: a lock names an address"; exit 1; }
	@if helm=$$($(RUN) -m cluster.tools where helm 2>/dev/null); then "$$helm" lint --quiet --strict --set trust.existingConfigMap=trust charts/modelparams; \
	else echo "static: the chart was not linted: make tools builds helm"; fi

# The API server is asked what it takes of the chart where it was built: make tools.
check: static ## formatting, lint, types, imports, locks; kinds and chart as the code has them, each value asked of the API server
	@$(RUN) -m pytest -q tests/contract tests/integration/chart/test_values.py

$(VENV)/.docs: $(READY) requirements-docs.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes --no-deps -r requirements-docs.lock
	@touch $@

docs: $(VENV)/.docs ## build the site of docs/ into build/docs; a broken link or anchor ends it
	@NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet --strict

chart: ## copy the kinds, roles and policies of the tree into the chart
	cp crds/*.yaml charts/modelparams/files/crds/
	cp operator/deploy/*.yaml charts/modelparams/files/deploy/

format: $(READY) ## let ruff format and mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: tools $(VENV)/.docs static ## the whole suite: unit, properties, simulation, attacks, integration (a real node: test-node)
	$(RUN) -m pytest -n $(WORKERS) --dist loadgroup -m 'not node and not e2e' $(ARGS)

test-unit: $(READY) ## what needs no server and no model: seconds
	$(RUN) -m pytest -n $(WORKERS) -m 'not integration and not model and not e2e' $(ARGS)

test-node: node-tools ## real pods on a real node: Linux and root, skipped with the reason elsewhere
	$(RUN) -m cluster.node exec --fresh --or-skip -- $(BIN)/python -m pytest -m node tests/integration/node/test_pods.py
	$(RUN) -m pytest -m node tests/integration/node/test_world.py

test-images: node-images ## the images themselves, and pods from them on a real node
	$(RUN) -m pytest -m node tests/integration/images/test_content.py
	$(RUN) -m cluster.node exec --fresh --or-skip -- $(BIN)/python -m pytest -m node tests/integration/images/test_pods.py

e2e: node-images tools ## the whole product on a real node, or on KUBECONFIG with MODELPARAMS_LOAD_IMAGE: tests/e2e
	@if [ -n "$$KUBECONFIG" ]; then $(RUN) -m pytest -m e2e tests/e2e $(ARGS); \
	else $(RUN) -m cluster.node exec --fresh --or-skip -- $(BIN)/python -m pytest -m e2e tests/e2e $(ARGS); fi

e2e-kind: images tools ## the same on kind: needs kind and docker or podman
	tests/e2e/kind.sh $(BIN)/python -m pytest -m e2e tests/e2e $(ARGS)

test-docs: docs node-images tools ## the site, and the quick start as its page has it on a real node
	$(RUN) -m pytest tests/unit/test_docs_site.py
	$(RUN) -m cluster.node exec --fresh --or-skip -- $(BIN)/python -m pytest -m node tests/integration/docs

# Where no node can run, processes play the pods; DEMO=--processes has them do it anywhere.
demo: tools $(if $(KUBECONFIG)$(DEMO),,node-images) ## the main job on real input, start to end; writes build/demo/report.json
	$(RUN) -m demo $(DEMO)

node-images: node-tools ## build the images for a real node of this machine: linked, not imported
	@$(RUN) -m cluster.images --builder=buildah --or-skip

images: $(READY) ## build the images of the operator and of serving pods; BASE=… names another image to begin with
	@$(RUN) -m cluster.images

bench: tools ## the table of speed and memory; writes build/bench/report.json
	$(RUN) -m bench

LOCKS := requirements.lock requirements-setup.lock requirements-docs.lock operator/requirements.lock serving/requirements.lock serving/torch.lock
EXPORT := export --quiet --format requirements-txt --no-header --no-annotate --no-emit-project

lock: $(BIN)/uv ## resolve again and write the locks, with hashes and without addresses
	$(BIN)/uv lock
	$(BIN)/uv $(EXPORT) --all-extras --all-groups --no-group setup --no-group docs -o requirements.lock
	$(BIN)/uv $(EXPORT) --only-group setup -o requirements-setup.lock
	$(BIN)/uv $(EXPORT) --only-group docs -o requirements-docs.lock
	$(BIN)/uv $(EXPORT) --extra operator -o operator/requirements.lock
	$(BIN)/uv $(EXPORT) --extra serving --prune torch -o serving/requirements.lock
	$(BIN)/uv $(EXPORT) --only-group torch -o serving/torch.lock
	@! grep -n '://' $(LOCKS)

clean: ## remove what was made in the tree (not the caches outside)
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
