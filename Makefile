# The two commands of the README are `make demo` and `make test`; each sets up what it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
# The lock names torch's plain version; a CPU build of it satisfies the lock where one is offered.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup demo test lint fast-test bench lock clean-runs

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 7; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing locked packages into .venv (once, a minute or two) ..."
	@$(INSTALL) --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: setup  ## a 3x speedup on embedded data, certified, with a report
	@$(BIN)/pipeline run --target auto --speedup 3 --out runs/demo

test: setup lint
	@$(BIN)/pipeline runtimes install deepsparse || echo "DeepSparse cannot be installed here: its tests are skipped."
	@$(BIN)/python -m pytest --durations=15

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fast-test: setup  ## without the slow ones: under five minutes
	@$(BIN)/python -m pytest -m "not slow"

bench: setup  ## repeats every committed benchmark; takes hours; needs SPDY_DATA
	@for script in budget_dp database latency_table resnet20; do $(BIN)/python -m benchmarks.$$script || exit; done

lock: setup  ## write the versions that are installed as the new lock
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt
