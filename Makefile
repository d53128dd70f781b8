# make run    train RetinaNet with and without RLO on the built-in data, and look at a table (about 5 minutes)
# make test   the tests that take minutes;   make test-all   all of them;   make test-gpu   those that use a GPU
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS = dev$(shell nvidia-smi >/dev/null 2>&1 && echo ,gpu)
# Many containers set it, and then each of the hundreds of processes that tests start compiles what it imports.
export PYTHONDONTWRITEBYTECODE =

.PHONY: run test test-all test-gpu lint types clean

run: $(VENV)/.installed
	$(BIN)/msdet run retinanet-r50 retinanet-r50-rlo --profile tiny --jobs 2
	$(BIN)/msdet report table1

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest

test-gpu: $(VENV)/.installed
	$(BIN)/python -m pytest -m gpu

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

# Wheels and pure Python only: the compiled operators of mmcv are neither built nor needed. pip compiles modules on one
# core; here all do. Where a GPU answers, torchvision's operators come along.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -q -c constraints.txt -e '.[$(EXTRAS)]'
	$(BIN)/python -W ignore -m compileall -q -j 0 $(VENV)/lib >/dev/null || true # some hold templates that are no Python
	@touch $@

clean:
	rm -rf $(VENV) build dist
