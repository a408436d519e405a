# make demo and make test work on a machine with Python 3.11 and pip; the rest is set up in .venv.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo evidence test lint format clean

help: ## show these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv and install everything (again only when pyproject.toml changed)

# Debian ships ensurepip apart (python3-venv). Without it, the system's pip fills a venv made without pip.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found. Name one: make setup PYTHON=python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
	  rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install pip; } || { rm -rf $(VENV); exit 1; }

$(STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --progress-bar off -e '.[all,dev]'
	@touch $@

demo: setup ## quantize the bundled demo checkpoint into four INT8 files and check each one
	$(BIN)/python -m segformer_edge.quantize --out out/demo --force

evidence: setup ## the same on your checkpoint: WEIGHTS=DIR DATA=camvid:DIR:val CALIBRATION=DIR [SIZE=384x512]
	$(BIN)/python benchmarks/evidence.py --weights "$(WEIGHTS)" --data "$(DATA)" --calibration "$(CALIBRATION)" --size "$(or $(SIZE),384x512)"

test: setup ## run the tests
	$(BIN)/python -m pytest

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv, caches and out/
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find segformer_edge quantization tests -name __pycache__ -type d -prune -exec rm -rf {} +
