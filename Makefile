# make search: install, search, compare.  make check, make test, make test-slow, make test-devices: what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETTINGS ?=
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# Else every process that a test starts would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install search test test-slow test-devices check clean

install: $(VENV)/.installed

# libpecos and nbdt ask for numpy 1 and for torchvision; what the tests use of them needs neither.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "treesearch needs Python 3.11 or newer; pass PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,chess,interop,hf,sb3,serve,taxonomies]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps libpecos nbdt
	$(BIN)/python -m treesearch.warmup
	touch $@

search: install
	$(BIN)/treesearch search configs/quickstart.yaml $(SETTINGS)

test: install
	$(PYTEST) -m "not slow"

test-slow: install
	$(PYTEST) -m "slow and not pretend"

test-devices: install
	TREESEARCH_PRETEND_DEVICE=build $(PYTEST) -m pretend tests/test_devices.py tests/softmax/test_cuda.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
