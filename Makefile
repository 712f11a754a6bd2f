# `make` lists the targets. ARGS passes options on:  make test ARGS="-k limiter -x"
SHELL := /bin/bash
.DEFAULT_GOAL := help
ARGS ?=

# Run in the project's own environment, whatever the caller has sourced (another workspace's
# packages, another master). ROS_IP keeps ROS on this host, also where the hostname does not resolve.
RUN := env -u ROS_PACKAGE_PATH -u ROS_MASTER_URI -u ROS_HOSTNAME -u ROS_DISTRO -u ROS_NAMESPACE \
	-u CMAKE_PREFIX_PATH -u PYTHONPATH -u PYTHONHOME ROS_IP=127.0.0.1 \
	bash -c '. scripts/env.sh && "$$@"' run

.PHONY: help setup test test-fast test-vendor test-py38 lint format demo rehearse experiments gallery bench clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## install what is missing: apt packages and .venv
	@scripts/setup.sh

LINT := ruff check . && ruff format --check -q . && codespell && mypy

# The node tests run by themselves, one after the other: each of them is several processes already.
# The rehearsal kills and stops nodes, which stay registered with its ROS master: it has its own.
test: setup  ## lint, then run the tests (no robot needed)
	@failed=0; $(RUN) bash -c '$(LINT)' || failed=$$?; \
	$(RUN) python -m pytest -q -n 2 --ignore tests/ros $(ARGS) || failed=$$?; \
	$(RUN) python -m pytest -q tests/ros --ignore tests/ros/test_rehearsal.py $(ARGS) || failed=$$?; \
	$(RUN) python -m pytest -q tests/ros/test_rehearsal.py $(ARGS) || failed=$$?; \
	exit $$failed

# One process per core; each starts torch, so it pays only where there are tests enough for it.
test-fast: setup  ## the tests without ROS, Ray and whatever is slow: under a minute
	@$(RUN) python -m pytest -q -m "not slow" -n auto --dist worksteal --ignore tests/ros $(ARGS)

test-vendor: setup  ## the drivers on the vendors' own clients, where these can be imported
	@$(RUN) python -m pytest tests/vendor $(ARGS)

test-py38:  ## what needs no torch, under a real Python 3.8 (python3.8, or PYTHON38=PATH)
	@scripts/test_py38.sh $(ARGS)

lint: setup  ## check style, spelling and types
	@$(RUN) bash -c '$(LINT)'

format: setup  ## sort imports and format the code
	@$(RUN) bash -c 'ruff check -q --select I --fix . && ruff format .'

demo: setup  ## collect, train, diagnose and deploy in simulation, through ROS
	@$(RUN) python scripts/demo.py $(ARGS)

rehearse: setup  ## play every fault over the real nodes: rehearsal/rehearsal.html
	@$(RUN) ofrl rehearse $(ARGS)

# PYTHONPATH comes back: a clone of roboverse can only be named there.
experiments: setup  ## reproduce the tables of the experiments page
	@$(RUN) env PYTHONPATH="$(PYTHONPATH)" python scripts/experiments.py $(ARGS)

gallery: setup  ## render and measure every simulated task for its page
	@$(RUN) python scripts/task_gallery.py $(ARGS)

# One of them:  make bench BENCH=sampler ARGS="--json sampler.json". PYTHONPATH as above.
BENCH ?= sim sampler train_step
bench: setup  ## measure simulator, sampler and training step beside what else is installed
	@bench/peers.sh
	@$(foreach b,$(BENCH),$(RUN) env PYTHONPATH="$(PYTHONPATH)" \
		python bench/$(b).py $(ARGS) &&) true

clean:  ## remove .venv, builds and caches; datasets/ and runs/ stay
	rm -rf .venv .venv38 .bench-venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
