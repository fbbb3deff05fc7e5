# `make` lists the targets. Everything they need is made or installed by them; see hack/cluster.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# Debian's own where it is there: images made from Debian packages have it, and it is built to be fast
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11) $(shell command -v python3.11) python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.neuron-sim
WORKERS ?= 1
KUBERNETES ?=
NAME ?=
EXISTING ?=
PORT ?=
TESTS ?=
TEST_CLUSTER := neuron-sim-test
SEED ?=
STEPS ?= 1000000
SOAK ?=
GO_DRIVER ?=
# EXISTING=1: the cluster of the current kubeconfig instead of one of ours
export NEURON_SIM_EXISTING := $(EXISTING)
ifneq ($(NAME),)
export NEURON_SIM_CLUSTER := $(NAME)
endif

.PHONY: help
help: ## list the targets
	@echo "targets (EXISTING=1 uses the cluster of your current kubeconfig):"
	@sed -nE 's/^([a-z-]+|\.venv):[^#]*## (.*)/  \1\t\2/p' Makefile | expand -t 18

# --- the cluster and what runs in it ---------------------------------------------------------

.PHONY: demo
demo: ## from nothing to neuron-ls in a pod on a simulated Trainium node
	@hack/demo

.PHONY: dashboards
dashboards: ## Prometheus beside the cluster, and how to see the dashboards (PORT=9090)
	@hack/dashboards $(if $(PORT),--port $(PORT))

.PHONY: up
up: ## start the cluster (NAME=neuron-sim, WORKERS=1, KUBERNETES=v1.36.3)
	@hack/cluster up --workers $(WORKERS) $(if $(KUBERNETES),--kubernetes $(KUBERNETES))

.PHONY: down
down: ## delete the cluster
	@hack/cluster down

.PHONY: image
image: ## build the images neuron-sim and neuron-tools
	@hack/image

.PHONY: load
load: image ## build them, and have the cluster's nodes run them
	@hack/cluster load $$(hack/image --names)

.PHONY: virtual-nodes
virtual-nodes: ## let the installed release have virtual nodes, played by KWOK (docs/virtual-nodes.md)
	@hack/cluster kwok
	@hack/helm upgrade neuron-sim charts/neuron-sim --reuse-values --set virtualNodes.enabled=true --wait

# --- development -----------------------------------------------------------------------------

.venv: $(STAMP) ## the virtual environment, with the command neuron-sim in it

$(STAMP): requirements-dev.lock pyproject.toml
	@PYTHON=$(PYTHON) hack/venv $(VENV)
	@touch $@

.PHONY: test
test: test-unit test-cluster ## all tests

.PHONY: test-unit
test-unit: $(STAMP) ## tests that need no cluster (TESTS=path or -k ... to choose)
	@hack/helm --existing version > /dev/null  # the chart's tests render with it
	@hack/promtool --version > /dev/null       # and check its rules with this
	@# one more than processors, because some tests wait
	$(BIN)/pytest tests/unit -n $$(($$(nproc) + 1)) --dist worksteal $(TESTS)

.PHONY: test-cluster
test-cluster: $(STAMP) ## tests on a real cluster, which they make themselves
	$(BIN)/pytest tests/cluster -n 3 --dist loadfile --no-loadscope-reorder $(TESTS)

.PHONY: soak
soak: $(STAMP) ## a million configurations, reports, messages and steps of the state machine (SEED=, STEPS=1000000)
	$(BIN)/python tests/soak/fuzz_config.py --examples $(STEPS) $(if $(SEED),--seed $(SEED))
	$(BIN)/python tests/soak/fuzz_activity.py --examples $(STEPS) $(if $(SEED),--seed $(SEED))
	$(BIN)/python tests/soak/fuzz_activity_socket.py --examples $(STEPS) $(if $(SEED),--seed $(SEED))
	$(BIN)/python tests/soak/fuzz_group.py --examples $(STEPS) $(if $(SEED),--seed $(SEED))
	$(BIN)/python tests/soak/state_machine.py --steps $(STEPS) $(if $(SEED),--seed $(SEED))

.PHONY: soak-cluster
soak-cluster: $(STAMP) ## pods come and go on the tests' cluster while parts of it are killed (SOAK="--pods 500 --seed 7")
	hack/cluster up --workers 2 --name $(TEST_CLUSTER)
	NEURON_SIM_CLUSTER=$(TEST_CLUSTER) $(MAKE) load
	NEURON_SIM_CLUSTER=$(TEST_CLUSTER) hack/helm upgrade --install neuron-sim charts/neuron-sim \
	  --namespace neuron-sim-system --create-namespace --wait
	$(BIN)/python tests/soak/churn.py $(SOAK)

.PHONY: bench
bench: $(STAMP) ## measure and print tables for docs/benchmarks.md (GO_DRIVER=binary of dra-example-driver, to compare)
	$(BIN)/python tests/bench/placement.py
	$(BIN)/python tests/bench/collectives.py
	$(BIN)/python tests/bench/nccom_over_pods.py
	$(BIN)/python tests/bench/exporter.py
	$(BIN)/python tests/bench/fleet_exporter.py
	$(BIN)/python tests/bench/drivers.py $(if $(GO_DRIVER),--go-driver $(GO_DRIVER))
	tests/bench/pods.sh $(GO_DRIVER)
	tests/bench/fault_delays.sh
	tests/bench/gangs.sh
	@hack/demo
	$(BIN)/python tests/bench/neuron_ls.py

FLEET ?= --nodes 500 --gangs 30

.PHONY: bench-fleet
bench-fleet: $(STAMP) ## measure virtual nodes on a cluster of their own (FLEET='--nodes 5000')
	tests/bench/fleet.sh $(FLEET)

.PHONY: bench-scheduler
bench-scheduler: $(STAMP) ## measure kube-scheduler's pace with our slices on a cluster of its own (SCHEDULER='--nodes 5000')
	tests/bench/scheduler.sh $(SCHEDULER)

.PHONY: generate
generate: $(STAMP) ## write what is generated from other files (CRDs)
	hack/generate

.PHONY: lint
lint: $(STAMP) ## ruff, mypy, import-linter, generated files, shell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports
	hack/generate --check
	@if command -v shellcheck > /dev/null; then hack/lint-shell; else echo "shellcheck is not installed: shell scripts not checked"; fi

.PHONY: lock
lock: $(STAMP) ## write the *.lock files anew, with the newest versions that pyproject.toml allows
	@hack/lock

.PHONY: clean
clean: ## remove what was made in this folder (the cache outside stays: see hack/cluster)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
