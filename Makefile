# Everything runs in .venv, made from the hash-locked requirements. `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/uv
# Compiled here and once: where PYTHONDONTWRITEBYTECODE is set, every start would compile 1,500 files, for 3 seconds.
INSTALL = $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python

# Where `make tools` puts promtool and helm.
export PATH := $(PATH):$(CURDIR)/.cache/tools

.PHONY: help setup native demo test fuzz faults bench bench-quick history models lint docs format lock tools wheel broker clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(VENV)/run.stamp  ## the whole system on this machine, 20 seconds, no Kafka needed
	@$(BIN)/vitalstream demo $(ARGS)

test: $(VENV)/native.stamp tools  ## every test, on a real Kafka (KAFKA_BOOTSTRAP_SERVERS, else Docker, else Java 17 + Maven)
	$(BIN)/python -m pytest $(ARGS)

fuzz: $(VENV)/native.stamp  ## broken messages of every format, and the native kernel against the Python decoder, 10 minutes; ARGS="--documents N"
	@$(BIN)/python -m tests.schemas.mutants $(ARGS)
	@$(BIN)/python -m tests.schemas.fuzz $(ARGS)

faults: $(VENV)/native.stamp  ## every injected fault, judged by the audit, an hour; ARGS="--seed N --hours H --rate N"
	$(BIN)/python -m pytest tests/faults --faults $(ARGS)

bench: $(VENV)/native.stamp  ## measure it next to its limit and its peers, on a real Kafka, an hour; ARGS="--only latency,starts"
	@$(BIN)/python -m benchmarks $(ARGS)

history: $(VENV)/dev.stamp  ## what a patient's past is worth to a model, on real ICU stays where they are present, 10 minutes; ARGS=--online compares a topic's scores with predict_proba
	@$(BIN)/python -m benchmarks.history $(ARGS)

bench-quick: $(VENV)/native.stamp  ## a few ratios of today next to the recorded ones, 3 minutes; it reports, it is not a test
	@$(BIN)/python -m benchmarks --quick $(ARGS)

models: $(VENV)/dev.stamp  ## try each kind of model on a real Kafka, for the table of docs/model-costs.md; ARGS="--only NAME,NAME"
	@$(BIN)/python -m benchmarks.models $(ARGS)

lint: $(VENV)/dev.stamp  ## ruff and mypy --strict; rustfmt and clippy where the kernel is built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if [ -d .cache/native ] && command -v cargo-fmt >/dev/null && command -v cargo-clippy >/dev/null; then \
	  cargo fmt --check --manifest-path native/Cargo.toml && CARGO_TARGET_DIR=.cache/native PYO3_PYTHON=$(CURDIR)/$(BIN)/python \
	  cargo clippy --quiet --locked --all-targets --manifest-path native/Cargo.toml -- --deny warnings; fi

docs: $(VENV)/dev.stamp  ## the site of docs/ into .cache/site, without a warning or not at all; ARGS=serve shows it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs $(or $(ARGS),build)

format: $(VENV)/dev.stamp  ## let ruff format and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: $(VENV)/native.stamp  ## .venv with the locked dependencies, for running and developing; the native kernel where cargo is installed

native: $(VENV)/dev.stamp  ## build the native kernel again, or say why that fails (needs cargo)
	@rm -f $(VENV)/native.stamp
	@$(MAKE) --no-print-directory $(VENV)/native.stamp
	@$(BIN)/python -c 'import vitalstream_native' || { cat .cache/native.log; exit 1; }

broker: $(VENV)/run.stamp  ## a real single-node Kafka in the foreground (needs Java 17+ and Maven)
	@$(BIN)/vitalstream broker $(ARGS)

wheel: $(VENV)/dev.stamp  ## build dist/*.whl
	@rm -rf dist
	$(UV) build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist

lock: $(UV)  ## resolve the requirements files again, to the newest versions
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes requirements-build.in -o requirements-build.txt
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes pyproject.toml -o requirements.txt
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --extra avro pyproject.toml -c requirements.txt -o requirements-image.txt
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes pyproject.toml --group dev -c requirements.txt -o requirements-dev.txt

tools:  ## promtool and helm into .cache/tools, unless they are on PATH; make test does this
	@.ci/tools

clean:  ## remove .venv, caches and builds
	rm -rf $(VENV) .cache dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(UV): requirements-build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vitalstream needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@echo "making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.txt
	@touch $@

$(VENV)/run.stamp: $(UV) requirements.txt pyproject.toml
	@echo "installing the locked dependencies ..."
	@$(INSTALL) --require-hashes -r requirements.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements-dev.txt
	@$(INSTALL) --require-hashes -r requirements-dev.txt
	@touch $@

# Without it everything works, only slower: so where it can't be built, one line says so.
$(VENV)/native.stamp: $(VENV)/dev.stamp $(wildcard native/*.* native/src/*.rs)
	@mkdir -p .cache && rm -rf .cache/wheels
	@$(UV) pip uninstall --quiet --python $(BIN)/python vitalstream-native 2>/dev/null || true
	@if ! command -v cargo >/dev/null; then \
	  echo "vitalstream runs without its native kernel: cargo is not installed" | tee .cache/native.log; \
	elif ! { CARGO_TARGET_DIR=.cache/native $(BIN)/maturin build --quiet --release --locked --manifest-path native/Cargo.toml \
	    --interpreter $(BIN)/python --out .cache/wheels \
	    && $(INSTALL) --no-deps --reinstall .cache/wheels/*.whl; } >.cache/native.log 2>&1; then \
	  echo "vitalstream runs without its native kernel: it could not be built, see .cache/native.log"; fi
	@touch $@
