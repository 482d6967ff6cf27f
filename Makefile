# SPDX-License-Identifier: GPL-2.0-only
#
# make demo   what emuV does, on a simulated GPU
# make test   the test suite
# make test-deep    100,000 random steps against the budget's reference; processes killed at random (minutes)
# make test-soak    processes, threads and changing budgets, data checked (10 minutes)
# make test-numba    numba-cuda's own tests, without emuV and under a budget
# make analyze      clang's warnings and static analysis (minutes; wants clang)
# make fuzz         readers of files and settings, with anything in them (minutes)
# make valgrind     threads, forks and children under memcheck (wants valgrind)
# make test-clients  programs on packages of other makers, under a budget
# make test-torch    PyTorch's memory, without emuV and under budgets (5.5 GB)
# make test-cupy     CuPy 12 against NumPy, without emuV and under budgets (2.8 GB)
#
# Each works from a fresh clone on Debian 12 with no GPU: it makes a virtual
# environment, installs what is needed into it, and builds.  PYTHON=… chooses
# the interpreter, TESTS=… the tests, EMUV_SANITIZE=… and EMUV_CFLAGS=… reach
# the compiler (setup.py).

VENV := .venv
PY := $(VENV)/bin/python
PIP := timeout 900 $(PY) -m pip --disable-pip-version-check install -q --retries 5
TESTS ?= tests

GPU_PYTHON ?= python3
GPU_SITE := build/gpu-site
# A folder that `make wheels GPU_PYTHON_VERSION=3.12` filled, for a machine
# without internet: make gpu-check WHEELS=.whl
WHEELS ?=
GPU_PYTHON_VERSION ?= 3.12

.PHONY: help build demo test test-deep test-soak test-numba test-clients test-torch test-cupy lint analyze coverage fuzz valgrind check-c bench gpu-check gpu-facts wheels dist clean
help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile
	@echo "more: build lint coverage check-c bench dist clean; on a GPU: gpu-check gpu-facts"

$(VENV)/.made: .ci/bootstrap
	.ci/bootstrap $(VENV)
	touch $@

# Programs that the demo and the integration tests run, test tools (about 900 MB
# in all), and emuV itself, editable.
$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(PIP) 'setuptools>=77' 'cffi>=1.16'
	$(PIP) --no-build-isolation -e '.[test,demo]'
	touch $@

build: $(VENV)/.installed
	@timeout 300 $(PY) setup.py -q build_ext --inplace

demo: build
	@timeout --kill-after=10 180 $(VENV)/bin/emuv demo

test: build
	@timeout --kill-after=10 1200 $(PY) -m pytest -q $(TESTS)

test-deep: build
	@EMUV_MODEL_STEPS=$(or $(STEPS),100000) timeout --kill-after=10 7200 \
		$(PY) -m pytest -q --durations=2 tests/model
	@KILL_SECONDS=30 timeout --kill-after=10 600 $(PY) -m pytest -q tests/c -k test_shared
	@EMUV_KILL_SECONDS=120 EMUV_SETS=200 timeout --kill-after=10 600 \
		$(PY) -m pytest -q tests/integration/test_shared.py -k "kills or eight"

test-soak: build
	@timeout --kill-after=10 1200 $(PY) tests/soak/run.py --seconds $(or $(SOAK_SECONDS),600)

# numba-cuda's own test suite on the simulated GPU, as it is and under a budget
# that makes it spill (some 700 MB to install).  SAVE=1 keeps the new list of
# results in tests/numba/results.txt, where nothing that passed before fails.
$(VENV)-%/.installed: tests/%/requirements.txt .ci/bootstrap
	.ci/bootstrap $(VENV)-$*
	timeout 3000 $(VENV)-$*/bin/python -m pip --disable-pip-version-check install -q \
		--retries 5 -r tests/$*/requirements.txt
	touch $@

test-numba: build $(VENV)-numba/.installed
	@timeout --kill-after=10 3600 $(VENV)-numba/bin/python tests/numba/run.py $(if $(SAVE),--save)
	@timeout --kill-after=10 3600 $(VENV)-numba/bin/python tests/numba/run.py --emuv

# Array languages that hand the driver PTX text of their own (some 60 MB).
test-clients: build $(VENV)-clients/.installed
	@timeout --kill-after=10 3000 $(VENV)-clients/bin/python tests/clients/run.py $(if $(SAVE),--save)

# Programs that link libcudart, over emuV's own.  SAVE=1 as above.
test-torch test-cupy: test-%: build $(VENV)-%/.installed
	@timeout --kill-after=10 3000 $(VENV)-$*/bin/python tests/$*/run.py $(if $(SAVE),--save)

lint: $(VENV)/.installed
	timeout 120 $(VENV)/bin/ruff check .
	timeout 300 $(VENV)/bin/mypy
	@if command -v $${CLANG:-clang} >/dev/null; then $(MAKE) --no-print-directory analyze; \
	else echo "emuv: no clang: its static analysis is left out" >&2; fi

analyze: $(VENV)/.installed
	@timeout --kill-after=10 1500 $(PY) .ci/analyze.py

# docs/coverage.md, from the list of interposed functions.
coverage: $(VENV)/.installed
	$(PY) csrc/gen_coverage.py > docs/coverage.md.new
	mv docs/coverage.md.new docs/coverage.md

# The C modules' own tests, under the address, undefined-behaviour and thread sanitizers.
check-c: build
	@timeout --kill-after=10 600 $(PY) -m pytest -q tests/c

# What reads strangers' bytes, with anything in them: FUZZ_SECONDS (60) for each of
# tests/fuzz/fuzz_*.c, by libFuzzer where clang has it; then environments.
fuzz: build
	@timeout --kill-after=10 3600 $(PY) tests/fuzz/run.py
	@ENVIRONMENTS=5000 timeout --kill-after=10 600 $(PY) -m pytest -q tests/fuzz/test_environment.py

# Whole programs under memcheck, with the libraries as they are shipped.
valgrind: build
	@timeout --kill-after=10 900 $(PY) tests/c/memcheck.py

# What emuV itself costs, on the simulated GPU.  SAVE=label keeps the figures in benchmarks/results.
bench: build
	@timeout --kill-after=10 900 $(PY) benchmarks/run_all.py $(if $(SAVE),--save $(SAVE))

# On a machine with an NVIDIA GPU, and perhaps no internet: uses the packages of
# the Python at hand (torch, cupy, …), adds emuV's own beside them, builds in place.
$(GPU_SITE)/.made: pyproject.toml
	mkdir -p $(GPU_SITE)
	timeout 120 $(GPU_PYTHON) .ci/gpu_site.py $(GPU_SITE) $(WHEELS)
	touch $@

gpu-check gpu-facts: export PYTHONPATH := $(CURDIR):$(CURDIR)/$(GPU_SITE)$(if $(PYTHONPATH),:$(PYTHONPATH))
gpu-check: $(GPU_SITE)/.made
	@timeout 240 $(GPU_PYTHON) setup.py -q build_ext --inplace
	@timeout --kill-after=10 500 $(GPU_PYTHON) tests/gpu/gpu_check.py $(if $(OUT),--output $(OUT)/gpu-check.json)

gpu-facts: $(GPU_SITE)/.made
	@timeout 240 $(GPU_PYTHON) setup.py -q build_ext --inplace
	@timeout --kill-after=10 400 $(GPU_PYTHON) benchmarks/driver_facts.py $(if $(OUT),--output $(OUT)/driver-facts.json)

wheels: $(VENV)/.installed
	timeout 300 $(PY) -m pip download -q -d .whl --only-binary :all: \
		--python-version $(GPU_PYTHON_VERSION) $$($(PY) .ci/gpu_site.py --list)

dist: $(VENV)/.installed
	timeout 600 $(PY) -m build

clean:
	rm -rf $(VENV) build dist *.egg-info emuv_shim/_lib emuv_shim/*.so \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis
