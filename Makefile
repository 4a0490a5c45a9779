# make demo    install into .venv, train on real weather, write runs/demo/report.html
# make test    install with the development tools, run all checks and all tests
# make check   format, lint, types and the import rule, without installing again
# make sanitize   build the core again with the sanitizers of GCC, and run its tests with that one
# make clean   remove everything that these made

PYTHON ?= python3
VENV ?= .venv
# The version that the suite is run with; any torch >= 2.9 works.
TORCH ?= torch==2.13.0
TEST_PROCESSES ?= 2

BIN := $(VENV)/bin
CORE_TESTS := tests/kernels/test_cpu.py tests/kernels/test_activations.py \
  tests/kernels/test_cpu_autograd.py tests/kernels/test_cpu_hostile.py tests/laws/test_agreement.py \
  tests/nn/test_stream.py
BUILD_INPUTS := pyproject.toml CMakeLists.txt $(wildcard csrc/*)

.PHONY: demo test check sanitize clean
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

# The core in SANITIZED is used by no other run. Python itself is not sanitized, so the runtime is
# preloaded, and libstdc++ with it, whose exceptions it watches. torch is expected to be refused some
# allocations, and nothing captures what is written at an abort.
SANITIZED := build/sanitize
sanitize: $(VENV)/installed-dev
	RECURRA_REQUIRE_CORE=1 $(BIN)/python -m pip install --quiet --no-deps --upgrade \
	  --target $(SANITIZED)/package -C build-dir=$(SANITIZED)/objects -C cmake.build-type=None \
	  -C cmake.define.RECURRA_SANITIZE=ON .
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so):$$($(CXX) -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	  RECURRA_SANITIZED=$(SANITIZED)/package/recurra OMP_NUM_THREADS=2 \
	  $(BIN)/python -m pytest -p tests.sanitized -p no:cacheprovider --capture=sys -q -k 'not cudnn' \
	  $(CORE_TESTS)

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
	$(BIN)/python -m pip install --quiet -C cmake.define.RECURRA_WARNINGS_AS_ERRORS=ON -e '.[all,dev]'
	@$(BIN)/recurra doctor | grep '^compiled core'
	@touch $@ $(VENV)/installed
