# Targets for people and for CI. `make` alone shows them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= $(shell nproc)
FAST := -m "not slow"

.PHONY: help setup labels test test-fast check bench lock

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 16

setup: $(STAMP)  ## make .venv with everything in requirements.lock (needs $(PYTHON) alone)

# The lock is installed by uv, which keeps one provider each of onnxruntime and cv2; pip would bring others back.
# Both are installed anew: one that is taken away takes the files of the others along.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --reinstall-package onnxruntime-gpu \
		--reinstall-package opencv-python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(STAMP)

labels: setup  ## label the embedded sample of 256 real faces, from nothing, and say where the labels are
	$(BIN)/luigi --module pipeline LabelAll --dataset sample --workers $(WORKERS)
	@$(BIN)/python -m pipeline status

# The pipeline's tests wait for processes that they start, so the others run beside them.
test: setup  ## run all tests
	@$(BIN)/python -m pytest tests/pipeline tests/benchmarks > $(VENV)/pipeline-tests.log 2>&1 & pipeline=$$!; \
	$(BIN)/python -m pytest --ignore=tests/pipeline --ignore=tests/benchmarks; rest=$$?; \
	wait $$pipeline; code=$$?; cat $(VENV)/pipeline-tests.log; exit $$((code | rest))

test-fast: setup  ## run the tests that start no pipeline and train nothing: under two minutes on two cores
	@$(BIN)/python -m pytest $(FAST) tests/data_manifests > $(VENV)/data-tests.log 2>&1 & data=$$!; \
	$(BIN)/python -m pytest $(FAST) tests/labelers tests/training/evaluation; rest=$$?; \
	wait $$data; code=$$?; cat $(VENV)/data-tests.log; exit $$((code | rest))

check: setup  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## measure kernels and the whole on this machine
	$(BIN)/python -m benchmarks

lock: setup  ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --override requirements.overrides --python-version 3.11 \
		--universal --generate-hashes --no-header --no-emit-index-url --no-annotate --upgrade -o requirements.lock
