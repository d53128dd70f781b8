# make run    train RetinaNet with and without RLO on the built-in data, and look at a table (about 5 minutes)
# make test   the tests that take minutes;   make test-all   all of them
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS = dev$(shell nvidia-smi >/dev/null 2>&1 && echo ,gpu)

.PHONY: run test test-all lint types clean

run: $(VENV)/.installed
	$(BIN)/msdet run retinanet-r50 retinanet-r50-rlo --profile tiny --jobs 2
	$(BIN)/msdet report table1

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

# Wheels and pure Python only: the compiled operators of mmcv are neither built nor needed. Python compiles each module
# when it is first imported: to compile all of them here, most of which are never used, takes minutes.
# Where a GPU answers, torchvision's operators come along.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -q -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf $(VENV) build dist
