# Everything runs in .venv, which `make` builds from constraints.txt; Python 3.11 to 3.13 and make are all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := bfrbctl tests benchmarks examples docs

.PHONY: demo test test-slow lint bench docs screenshots clean

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh demo

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow

lint: $(STAMP)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m pytest benchmarks/timings --benchmark-only -p no:xdist

docs: $(STAMP)
	$(BIN)/python docs/generate.py

screenshots: $(STAMP)
	$(BIN)/python docs/screenshots.py demo

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed; say which: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)
