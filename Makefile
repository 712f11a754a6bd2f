# `make` lists the targets. ARGS passes options on:  make test ARGS="-k limiter -x"
SHELL := /bin/bash
.DEFAULT_GOAL := help
ARGS ?=

# Run in the project's own environment, whatever the caller has sourced (another workspace's
# packages, another master). ROS_IP keeps ROS on this host, also where the hostname does not resolve.
RUN := env -u ROS_PACKAGE_PATH -u ROS_MASTER_URI -u ROS_HOSTNAME -u ROS_DISTRO -u ROS_NAMESPACE \
	-u CMAKE_PREFIX_PATH -u PYTHONPATH -u PYTHONHOME ROS_IP=127.0.0.1 \
	bash -c '. scripts/env.sh && "$$@"' run

.PHONY: help setup test lint demo experiments gallery bench clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## install what is missing: apt packages and .venv
	@scripts/setup.sh

test: setup  ## lint, then run the tests (no robot needed)
	@lint=0; $(RUN) ruff check . || lint=$$?; \
	$(RUN) python -m pytest -q $(ARGS) && exit $$lint

lint: setup  ## check the style of the code
	@$(RUN) ruff check . $(ARGS)

demo: setup  ## collect, train, diagnose and deploy in simulation, through ROS
	@$(RUN) python scripts/demo.py $(ARGS)

experiments: setup  ## reproduce the tables of the experiments page
	@$(RUN) python scripts/experiments.py $(ARGS)

gallery: setup  ## render and measure every simulated task for its page
	@$(RUN) python scripts/task_gallery.py $(ARGS)

# One of them:  make bench BENCH=sampler ARGS="--json sampler.json"
# PYTHONPATH comes back: a clone of roboverse can only be named there.
BENCH ?= sim sampler train_step
bench: setup  ## measure simulator, sampler and training step beside what else is installed
	@bench/peers.sh
	@$(foreach b,$(BENCH),$(RUN) env PYTHONPATH="$(PYTHONPATH)" \
		python bench/$(b).py $(ARGS) &&) true

clean:  ## remove .venv, builds and caches; datasets/ and runs/ stay
	rm -rf .venv .bench-venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
