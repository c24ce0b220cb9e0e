# make demo   the main job on real handwritten digits, from a bare clone
# make test   lint, types, import contracts, tests
# make test-arm   workers on an emulated Arm board (QEMU)
# make docs   the documentation as a site, in site/
# Needs Python >= 3.11, make and a package index; everything else goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
DEMO ?= quickstart
ARM ?= build/arm

.PHONY: demo test test-arm lint types contracts tests coverage docs pictures rooms schemas calibrate bench clean

demo: .venv/installed
	$(BIN)/nonn-plan quickstart -o $(DEMO)

test: .venv/installed-dev
	$(MAKE) --jobs=2 lint types contracts
	$(MAKE) tests

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/mypy

contracts: .venv/installed-dev
	$(BIN)/lint-imports --no-cache

# A process per core with one thread each: the networks of the tests are too small to share. A file's
# tests stay in one process, where its fixtures are made once.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

tests: .venv/installed-dev
	$(PYTEST)

# The same tests under a tracer, which takes about twice the time: the gate is in pyproject.toml.
coverage: .venv/installed-dev
	$(PYTEST) --cov --cov-report=term

# Workers on a whole emulated Arm machine, which ARM keeps: some 180 MB of downloads, and minutes.
# Skipped where a program that it needs is not there; what was measured is shown.
test-arm: .venv/installed-dev $(DEMO)/summary.json
	OMP_NUM_THREADS=1 NONN_PLAN_ARM=$(ARM) NONN_PLAN_DEMO=$(DEMO) $(BIN)/pytest -s -rs tests/arm

$(DEMO)/summary.json:
	$(MAKE) demo

# The site of docs/.  A warning, such as a link that leads nowhere, is an error.  (The variable: the
# theme's note on its successor.)
docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# The pictures of the pages, drawn from the demo's files: docs/images/*.png.
pictures: demo
	sh docs/pictures.sh $(BIN) $(DEMO)

# Each file of each room with its first sentence.
rooms:
	@$(PYTHON) tests/house/rooms.py

# JSON Schemas of all files that commands exchange.
schemas: .venv/installed
	$(BIN)/python -m nonn_plan.schemas docs/schemas

# The figures of the shipped devices, fitted anew to the published ones.
calibrate: .venv/installed
	$(BIN)/python -m profiles.calibration

# docs/planner-benchmark.md: baselines beside the proven optimum.
bench: .venv/installed
	$(BIN)/python benchmarks/planning.py --samples 32

clean:
	rm -rf .venv build dist site

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nonn-plan needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv

# torch goes first: other packages would pull the index's newest build.
.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
