# A Python 3.11 or newer and make are all this needs; the rest installs itself into .venv.
SHELL := /bin/bash
BIN := .venv/bin
UV := .ci/venv uv
.DEFAULT_GOAL := help
.PHONY: help venv jaeger demo test unit simulate test-minimum test-compiled wheel check format images images-test kubernetes bench bench-quick bench-page bench-peers chaos model coverage fuzz lock clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

venv: ## make .venv from requirements.lock (does nothing if it is up to date)
	@.ci/venv

jaeger: ## build the Jaeger that tests and the demo look at traces in (minutes, once; does nothing if it is there)
	@.ci/jaeger

demo: venv ## a saga across three services, on a real Kafka and a real Postgres; ARGS="--orders 200" starts fewer
	@$(BIN)/python participants/examples/demo.py $(ARGS)

test: venv ## all tests, on real servers and in a real browser too
	@.ci/chromium >/dev/null
	@.ci/jaeger >/dev/null
	@.ci/test

unit: venv ## the tests that need no servers: seconds
	@.ci/test tests

simulate: venv ## everything that goes wrong, on simulated time: SEEDS=1000 SEED=1 make simulate; tells what it finds
	@PYTHONPATH=tests $(BIN)/python -m simulator --seeds=$(or $(SEEDS),1000) --seed=$(or $(SEED),1) $(ARGS)

test-minimum: ## the unit tests on the lowest versions that pyproject.toml allows
	@.ci/venv
	@$(UV) venv --quiet --clear --python $(BIN)/python .venv-minimum
	@$(UV) pip install --quiet --python .venv-minimum/bin/python --resolution lowest-direct \
		-e '.[api,archive,orchestrator]' --group test --group build
	@.venv-minimum/bin/python -m pytest tests

test-compiled: ## the unit tests on a compiled wheel, in a venv of its own
	@.ci/compiled
	@.venv-compiled/bin/python -m pytest -m "not pure" tests

wheel: venv ## dist/: a compiled wheel for this machine's Python and platform
	@KASAGA_COMPILE=1 $(UV) build --quiet --wheel --python $(BIN)/python --build-constraint requirements.lock --out-dir dist

check: venv ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

format: venv ## let ruff put the code in shape
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

model: venv ## the protocol's model: every state, each planted bug, runs of the simulator; ARGS='--show BUG' tells one
	@PYTHONPATH=integration:tests $(BIN)/python -m model $(ARGS)

images: venv ## build the images with podman, as root; brings what it needs from Debian
	@PYTHONPATH=integration $(BIN)/python -m images.build

images-test: venv ## run the images read-only on real servers, and audit what they leave
	@PYTHONPATH=integration $(BIN)/python -m images.check

kubernetes: venv ## a real Kubernetes, and a release's whole life on it under load, as root; ARGS=--keep leaves the logs
	@PYTHONPATH=integration $(BIN)/python -m kubernetes $(ARGS)

bench: venv ## measure on this machine, on real servers: ARGS="throughput latency --out figures.jsonl"; ARGS=--help tells what; COMPILED=1
	@$(if $(COMPILED),.ci/compiled)
	@PYTHONPATH=integration $(if $(COMPILED),.venv-compiled/bin,$(BIN))/python -m bench $(ARGS)

bench-quick: venv ## CPU of the hot parts in half a minute, without servers: ARGS="--against earlier.jsonl" compares
	@PYTHONPATH=integration $(BIN)/python -m bench.quick $(ARGS)

bench-page: venv ## BENCHMARKS.md and its charts, from figures' lines: ARGS=figures.jsonl
	@PYTHONPATH=integration $(BIN)/python -m bench.page $(ARGS)

bench-peers: venv ## peers and ours on the same payment saga, in turns: ratios as JSON lines; ARGS=--temporal for Temporal, too; COMPILED=1
	@$(if $(COMPILED),.ci/compiled)
	@PYTHONPATH=integration $(if $(COMPILED),.venv-compiled/bin,$(BIN))/python -m bench.peers $(ARGS)

chaos: venv ## kill, freeze, cut off and fill up everything under load, then audit: MINUTES=10 SEED=1 make chaos, or ARGS=…
	@PYTHONPATH=integration:participants $(BIN)/python -m chaos $(if $(MINUTES),--minutes=$(MINUTES)) $(if $(SEED),--seed=$(SEED)) $(ARGS)

coverage: venv ## how much of engine, store and dispatch the tests run, by branch; the engine has to be complete
	@.ci/coverage

fuzz: venv ## change example bytes at random and read them, for a while: MINUTES=5 SEED=1
	@PYTHONPATH=tests:participants $(BIN)/python -P -m fuzz $(if $(MINUTES),--minutes=$(MINUTES)) $(if $(SEED),--seed=$(SEED))

lock: ## write requirements.lock anew from pyproject.toml
	@touch requirements.lock
	@$(UV) pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes \
		--no-emit-index-url --no-header --all-extras --group build --group test pyproject.toml -o requirements.lock

clean: ## remove what can be made again
	rm -rf .venv .venv-minimum .venv-compiled .bootstrap build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
