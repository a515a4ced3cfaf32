# Everything a newcomer needs is a target here; `make` alone lists them.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ENCODERS := .plait/encoders/.pulled

.PHONY: help setup demo demo-video up test test-slow gpu chaos bench-service bench-kernels tune-kernels check docs

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(STAMP) $(ENCODERS) ## make .venv, install Plait and fetch the default encoders

demo: setup ## fine-tune three real models and show what fusion gained
	$(BIN)/python demo/run.py

demo-video: setup ## the same with films of moving, spoken digits: frames, sound, and both
	$(BIN)/python demo/video.py $(ROWS)

up: setup ## run the service here until Ctrl-C
	$(BIN)/plait-server up

test: setup ## all tests but the slow ones (at most 12 minutes on 2 cores)
	$(BIN)/pytest -m "not slow and not gpu" -n 2 --dist loadfile

test-slow: setup ## the slow tests
	$(BIN)/pytest -m "slow and not gpu"

gpu: $(STAMP) ## the tests of the kernels on a GPU; without one they are skipped aloud
	TRITON_INTERPRET=0 $(BIN)/pytest --noconftest -W default -rs -n 4 --dist worksteal tests/gpu

chaos: $(STAMP) ## 300 jobs under 100 faults on each database (SEED=, JOBS=, FAULTS=, DATABASE=)
	PYTHONPATH=tests:. $(BIN)/python -m chaos.run $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(DATABASE),--database $(DATABASE)) $(if $(UNFENCED),--unfenced)

check: $(STAMP) ## ruff, types, import floors, guards
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file client/pyproject.toml client/plait
	$(BIN)/lint-imports
	$(BIN)/pytest tests/guards

bench-service: $(STAMP) ## the service beside a naive peer, in about 24 minutes on 2 cores; writes benchmarks/results/service
	$(BIN)/python -m benchmarks.service

bench-kernels: $(STAMP) ## the kernels beside eager and compiled PyTorch on a GPU, in under 10 minutes; writes benchmarks/results/kernels
	$(BIN)/python -m benchmarks.kernels

tune-kernels: $(STAMP) ## time the kernels' configurations on this GPU; writes kernels/configs/<device>.json
	$(BIN)/python -m benchmarks.kernels.tune

docs: $(STAMP) ## write docs/spec.md and docs/cli.md anew
	$(BIN)/python -m ops.reference docs

$(STAMP): pyproject.toml constraints.txt client/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e client -e '.[dev]'
	touch $@

$(ENCODERS): | $(STAMP)
	$(BIN)/plait-server encoders pull
	touch $@
