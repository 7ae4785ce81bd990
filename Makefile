# make demo: a stranger's first five minutes.  make test: what CI runs.
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: setup demo test lint clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "torch==2.13.0"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

demo: setup
	rm -rf runs/nano
	$(VENV)/bin/warmline run configs/nano.yaml --quick

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint
	$(PYTHON) -m pytest --numprocesses 2 --dist worksteal

clean:
	rm -rf $(VENV) build dist runs data_cards src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
