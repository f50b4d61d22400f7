# The two commands of the README are `make demo` and `make test`; each sets up what it needs.
PYTHON ?= $(shell for p in python3.11 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
# The lock names torch's plain version; a CPU build of it satisfies the lock where one is offered.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Tests of what is measured run alone; the others two at a time, on a core each: whole runs measure too, but ask only
# whether they end as noise has it. In the order of their names: by number of tests, as is usual, the longest come last.
TOGETHER := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test lint deepsparse fast-test bench lock clean help

setup: $(READY)  ## install the locked packages into .venv

# An environment without pip was left by an installation that failed or was interrupted, or its Python has gone.
$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 7; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
		"$(PYTHON)" -m venv $$(test -x $(BIN)/python || echo --clear) .venv || \
		{ echo "Python's venv module is needed; systems that split it off have it as python3.11-venv" >&2; exit 7; }
	@echo "Installing locked packages into .venv (once, a minute or two) ..."
	@$(INSTALL) --constraint constraints.txt --editable '.[compress,dev]'
	@touch $(READY)

# Fewer plans, evaluations and passes than a release takes, and a certificate that ends: the same stages, sooner.
DEMO := --allocator spdy --plans 30 --evaluations 100 --correction-passes 12 --certify-budget 80

demo: setup  ## a 3x speedup on embedded data, certified, with a report
	@$(BIN)/pipeline run --target auto --speedup 3 $(DEMO) --out runs/demo

test: setup  ## every check: style, types, import rules, all tests
	@$(MAKE) --no-print-directory --jobs 2 lint deepsparse
	@$(BIN)/python -m pytest $(TOGETHER) -m "not slow and not timed"
	@$(BIN)/python -m pytest -m "timed"
	@$(BIN)/python -m pytest $(TOGETHER) --durations=15 -m "slow and not timed"

lint: setup  ## style, types and import rules alone
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

deepsparse: setup  ## install DeepSparse beside .venv, where it can be
	@$(BIN)/pipeline runtimes install deepsparse || echo "DeepSparse cannot be installed here: its tests are skipped."

fast-test: setup  ## the tests without the slow ones: under five minutes
	@$(BIN)/python -m pytest $(TOGETHER) -m "not slow and not timed"
	@$(BIN)/python -m pytest -m "timed and not slow"

bench: setup  ## repeat every committed benchmark: takes hours, needs SPDY_DATA
	@for script in against_authors budget_dp certificates correction_ablation database database_big families full_size latency_table load_bundle minilm resnet20 resnet50_profile scaling search_ablation yolov5n; do $(BIN)/python -m benchmarks.$$script || exit; done

lock: setup  ## write the versions that are installed as the new lock
	@$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable >.venv/lock.txt
	@sed 's/+cpu$$//' .venv/lock.txt >constraints.txt
	@touch $(READY)

clean:  ## remove .venv, caches and builds; run folders stay
	rm -rf .venv build dist *.egg-info .*_cache .hypothesis
	find . -path ./runs -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 14
