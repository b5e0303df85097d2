# make demo   train and show the built-in example
# make test   style, types and all tests
# make quick  style and the quick tests
# All make .venv when it is missing and install the pinned requirements into it.

PYTHON ?= python3
PIP_INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test quick

demo: .venv/installed
	.venv/bin/python train.py
	@echo "rainy, derained and clean side by side: open $$(ls runs/synthetic/strips/*.png | head -n 1)"

test: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest

quick: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python -m pytest -m "not slow"

.venv/bin/pip:
	$(PYTHON) -m venv --clear .venv

.venv/installed: requirements.txt | .venv/bin/pip
	$(PIP_INSTALL) -r requirements.txt
	touch $@

.venv/installed-dev: requirements.txt requirements-dev.txt | .venv/bin/pip
	$(PIP_INSTALL) -r requirements-dev.txt
	touch $@ .venv/installed
