# make demo    simulate a session, fit it, draw the report      (results in demo/)
# make test    every check and test
# make env     the environment that both use                    (.venv/)
# make clean   remove both
#
# Only Python 3.11 or later and make are assumed; no active environment is used. PYTHON=... names another interpreter.
# The checkout may lie in a folder with spaces in its name, since every path here is relative to it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# An environment that happens to be active must not leak in: neither its packages nor its settings.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX PIP_USER PIP_TARGET PIP_PREFIX
export PYTHONNOUSERSITE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MPLBACKEND := agg

BIN := .venv/bin
STAMP := .venv/installed
SESSION := demo/session.nwb

.PHONY: help env test demo clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

env: $(STAMP)

$(STAMP): constraints.txt pyproject.toml
	@python=; for candidate in "$(PYTHON)" python3.11 python3.12 python3.13 python3.14 python3; do \
	  if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$candidate"; break; fi; done; \
	if [ -z "$$python" ]; then echo "make: found no Python 3.11 or later with venv and pip; install one, or name it: make env PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	echo "making .venv with $$("$$python" --version), versions from constraints.txt"; \
	"$$python" -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(STAMP)

# Each check names itself before it runs, so the last line before make's error says which one failed.
# One process of tests per core, each with one thread, and a file's tests in one process, so what they share is made once.
test: env
	@run() { echo "== $$1"; shift; "$$@" || { echo "== FAILED: $$*" >&2; exit 1; }; }; \
	run "style" $(BIN)/ruff check .; \
	run "types" $(BIN)/mypy; \
	run "import directions" $(BIN)/lint-imports; \
	run "spelling" $(BIN)/codespell; \
	run "tests and doctests" env OMP_NUM_THREADS=1 $(BIN)/pytest -q -n logical --dist loadfile; \
	echo "== all checks passed"

demo: env
	@rm -rf demo && mkdir demo
	$(BIN)/nwb-compact simulate $(SESSION) --units 8 --images 600 --repeats 6 --seed 1 --overwrite
	$(BIN)/nwb-compact fit $(SESSION) --preset quick
	$(BIN)/nwb-compact report $(SESSION) -o demo/report --overwrite
	@$(BIN)/nwb-compact show $(SESSION)
	@echo "open demo/report/index.html in a browser; the results are in $(SESSION)"

clean:
	rm -rf .venv demo
