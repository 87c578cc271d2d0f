# Everything a contributor types. `make` alone lists it.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
CHECKED := shared services tests
# Tests and demos start dozens of processes, and each would compile all that it imports anew: seconds of each start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format schemas bench lock services clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## An environment of its own in .venv, exactly as locked (PYTHON=python3.12 chooses the interpreter)

# Made again only when the lock or the project file changed. uv is used where it is on PATH, because it is faster.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("Penstock runs on Python 3.11 to \
	3.13, and $(PYTHON) is " + sys.version.split()[0] + " -> make setup PYTHON=python3.12")'
	@echo "setting up .venv as locked: about a minute, once"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@if command -v uv >/dev/null; then \
		uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock && \
		uv pip install --quiet --python $(BIN)/python --no-deps -e .; \
	else \
		$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock && \
		$(BIN)/python -m pip install --quiet --no-deps -e .; \
	fi
	@touch $@

demo: $(READY) ## Real flights through the whole loop, with a dashboard (ARGS="--embedded" needs only Python)
	$(BIN)/penstock demo $(ARGS)

test: $(READY) ## The tests, without the slow ones (ARGS="-k drift" chooses, ARGS="-n 2 --dist loadfile" takes two files at a time)
	$(BIN)/python -m pytest -m "not slow" --durations=15 --durations-min=5 $(ARGS)

test-all: $(READY) ## All tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(READY) ## Format, lint, types, and who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict $(CHECKED)
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python shared/penstock/examples/*/__init__.py

format: $(READY) ## Write code the way lint wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schemas: $(READY) ## Write schemas/ and the README's generated parts anew
	$(BIN)/penstock schemas export
	$(BIN)/python tests/examples/test_readme.py

bench: $(READY) ## Measure on this machine, beside floors and peers (ARGS="rows reads" chooses, ARGS=--quick is short)
	$(BIN)/python -m tests.benchmarks.bench $(ARGS)

lock: $(READY) ## Resolve the dependencies anew into requirements.lock, with hashes
	PATH="$$PATH:$(CURDIR)/$(BIN)" uv pip compile --universal --generate-hashes --no-emit-index-url --upgrade \
		--quiet --extra dev pyproject.toml -o requirements.lock

services: $(READY) ## What the tests want beside Python: Java, Redis (installed only with CI=true), Kafka's jars
	PATH="$(CURDIR)/$(BIN):$$PATH" bash tests/install-services.sh

clean: ## Remove what was built, .venv too; the data in .penstock stays (penstock down --wipe removes it)
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find shared services tests -name __pycache__ -type d -prune -exec rm -rf {} +
