# Few verbs; each does the set-up that it needs. PYTHON names another Python 3.11.
PYTHON ?= python3.11
BIN := .venv/bin

# dvc.yaml's commands find `python` and `roadseg` here.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DO_NOT_TRACK := true
export DVC_NO_ANALYTICS := 1
export HF_HUB_OFFLINE ?= 1
export MLFLOW_DISABLE_TELEMETRY := true
export NO_ALBUMENTATIONS_UPDATE := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help setup repro test check up bench
.DEFAULT_GOAL := help

help: ## say what the verbs do
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup: .venv/.stamp ## the environment, in .venv/

# An environment works in the folder that it was made in: where the project was moved, it is made again.
ifneq ($(file < .venv/.stamp),$(CURDIR))
.PHONY: .venv/.stamp
endif

.venv/.stamp: constraints.txt pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null || true # as pip does it, but on every core
	@echo '$(CURDIR)' > $@

repro: setup ## the whole line, from nothing to a registered champion
	$(BIN)/dvc repro
	@echo
	@echo "The champion is registered; its bundle is in models/promote/bundle/ and models/promote/card.md says why it won."
	@echo "Look at it: dvc metrics show, dvc plots show, or make up (Prefect and MLflow). First: source .venv/bin/activate"

test: setup ## prove the project
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup ## style, types, layers, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_seams.py

up: setup ## Prefect, MLflow and the retrain schedule, until Ctrl-C
	$(BIN)/python -m pipelines.up

bench: setup ## what docs/results.md says was learned, measured again (needs a finished make repro)
	$(BIN)/python -m bench.learned
