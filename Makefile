# make demo    install into .venv, train on real weather, write runs/demo/report.html
# make test    install with the development tools, run all checks and all tests
# make check   format, lint, types and the import rule, without installing again
# make clean   remove everything that these made

PYTHON ?= python3
VENV ?= .venv
# The version that the suite is run with; any torch >= 2.9 works.
TORCH ?= torch==2.13.0
TEST_PROCESSES ?= 2

BIN := $(VENV)/bin
BUILD_INPUTS := pyproject.toml CMakeLists.txt $(wildcard csrc/*)

.PHONY: demo test check clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/recurra demo

test: check
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) -q

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

clean:
	rm -rf $(VENV) build dist runs/demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and alone: it is by far the largest, and is kept when only recurra is rebuilt.
$(VENV)/torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is too old; recurra needs Python 3.11 or newer (make PYTHON=python3.12 ...)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	@touch $@

$(VENV)/installed: $(VENV)/torch $(BUILD_INPUTS)
	$(BIN)/python -m pip install --quiet -e '.[all]'
	@$(BIN)/recurra doctor | grep '^compiled core'
	@touch $@

$(VENV)/installed-dev: $(VENV)/torch $(BUILD_INPUTS)
	$(BIN)/python -m pip install --quiet -e '.[all,dev]'
	@$(BIN)/recurra doctor | grep '^compiled core'
	@touch $@ $(VENV)/installed
