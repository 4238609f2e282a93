# Each target does all its own set-up: on a fresh Debian or Ubuntu, `make demo` is the first command.
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.tools/bin:$(PATH)
BROKERS ?= $(CURDIR)/.cache/brokers
PYTHONS ?= $(CURDIR)/.cache/python
KUBERNETES ?= $(CURDIR)/.cache/kubernetes
export CLOUD ?= $(CURDIR)/.cache/cloud

WORKERS ?= 3

.PHONY: help setup demo up test check bench test-all test-loaded test-python test-brokers test-kubernetes \
	cloud cloud-down scenario test-cloud golden docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup:
	@scripts/setup

demo: setup  ## the main job end to end, with a real Keystone and Glance (two minutes)
	stackbus demo -f examples/deployment.yaml

up: setup  ## a private bus with two topics, until Ctrl-C
	stackbus up -f examples/deployment.yaml

check: setup  ## formatting, lint, types, floors, generated pages, plain English
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	python scripts/reference.py --check
	python scripts/crd.py --check
	python scripts/language.py

test: setup  ## every test, on this machine's RabbitMQ; PART=unit, contract, bus, cli or kubernetes
	scripts/setup kubectl
	pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(if $(PART),tests/$(PART))

test-loaded: setup  ## every test, beside processes that keep all cores busy
	scripts/setup kubectl
	scripts/test-loaded

test-python: setup  ## unit and contract tests on Debian 13's Python 3.13 (root; a minute once)
	scripts/test-python $(PYTHONS)

test-all: test test-python test-brokers test-kubernetes test-cloud  ## the nightly matrix; not in CI

bench: setup  ## speed, as ratios against a peer in the same run
	scripts/setup kubectl
	python bench/run.py

test-brokers: setup  ## the tests that need a broker, on Debian 12's, 13's and forky's RabbitMQ
	scripts/test-brokers $(BROKERS)

test-kubernetes: setup  ## the operator on real API servers, built from Debian's sources (root; 15 minutes once)
	scripts/setup kubectl
	scripts/test-kubernetes $(KUBERNETES)

cloud: setup  ## ten real OpenStack services on a private bus; stays up (CLOUD=folder, SERVICES="nova heat")
	scripts/setup mariadb
	python -m tests.cloud up $(SERVICES)

cloud-down:  ## end what `make cloud` started
	python -m tests.cloud down

scenario: setup  ## do what people do in the cloud that is up, and hold what was told against it
	python -m tests.cloud scenario $(SERVICES)

test-cloud: setup  ## bring the cloud up, do what people do, hold what was told against it, take it down
	scripts/setup mariadb
	pytest tests/cloud
	python -m tests.cloud test $(SERVICES)

golden: setup  ## write tests/golden/ anew from what the cloud has sent so far
	python -m tests.cloud capture
	python -m tests.events

docs: setup  ## write the generated pages anew
	python scripts/reference.py
	python scripts/crd.py

clean:  ## remove what the targets made here
	rm -rf .venv .tools .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
