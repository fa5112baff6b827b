# Everything that a person does here. Each target sets up what it needs; the second time that takes no time.

VENV       := .venv
PY         := $(VENV)/bin/python
READY      := $(VENV)/ready
UNFINISHED := $(VENV)/unfinished
PIP        := $(PY) -m pip --quiet --quiet --disable-pip-version-check --no-input

STUDY      ?= examples/digits/study.toml
WORKERS    ?= 2
ARGS       ?=
SEEDS      ?=
TRIALS     ?= 200
FAULTS     ?= 40
LEASE      ?= short

.DEFAULT_GOAL := help
.PHONY: help start test test-default-lease test-frameworks chaos lint screenshots docs bench lock audit clean
MAKEFLAGS += --no-print-directory

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

start: $(READY) ## Run a study with embedded services (STUDY=examples/digits/study.toml WORKERS=2)
	@$(PY) -m coordinator start $(STUDY) --workers $(WORKERS)

# Several hundred processes import our code: with the bytecode kept, each of them does so in less time.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(READY) ## Run all tests, several at a time; with ARGS only those, one by one (ARGS="tests/unit -k lease")
	@$(PY) -m pytest $(or $(ARGS),--numprocesses auto --dist loadfile --no-loadscope-reorder)

FRAMEWORKS_ENV := build/frameworks-env

test-frameworks: $(FRAMEWORKS_ENV)/ready ## Test the callbacks on PyTorch, Lightning, Transformers, XGBoost (several gigabytes the first time)
	@$(FRAMEWORKS_ENV)/bin/python -m pytest -q tests/integration/test_framework_callbacks.py $(ARGS)

$(FRAMEWORKS_ENV)/ready: tests/frameworks.txt $(READY)
	@$(PY) -m venv --clear $(FRAMEWORKS_ENV)
	@$(FRAMEWORKS_ENV)/bin/python -m pip --quiet --disable-pip-version-check --no-input install --require-hashes -r tests/frameworks.txt
	@touch $@

LONG_LEASE := $(addprefix tests/integration/test_,faults.py frozen_database.py frozen_redis.py poisoned_studies.py \
	lifecycle.py worker_node.py agent_outage.py checkpoints.py full_disk.py) tests/deploy/test_network.py

test-default-lease: $(READY) ## The tests of faults with the lease of a user (30 s) instead of a short one; some twenty minutes
	@TEST_LEASE=default $(PY) -m pytest -m "slow or not slow" $(or $(ARGS),$(LONG_LEASE))

chaos: $(READY) ## Random faults on a cluster of its own, the books checked afterwards (SEEDS=1..20 TRIALS=200 FAULTS=40 LEASE=short)
	@$(PY) -m tests.chaos.run $(if $(SEEDS),--seeds $(SEEDS)) --trials $(TRIALS) --faults $(FAULTS) --lease $(LEASE) $(ARGS)

lint: $(READY) ## Check style, types (of the benchmarks too) and who imports whom
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

screenshots: $(READY) ## Every page of the dashboard at 420 and 1400 pixels, light and dark, into screenshots/
	@mkdir -p screenshots
	@SCREENSHOTS=$(CURDIR)/screenshots $(PY) -m pytest tests/browser -q -k fits

DOCS_ENV := build/docs-env

docs: $(READY) $(DOCS_ENV)/ready ## Write the generated pages again and build the site into site/, links checked
	@$(PY) docs/generate.py
	@NO_MKDOCS_2_WARNING=1 $(DOCS_ENV)/bin/python -m mkdocs --quiet build --strict --site-dir site
	@echo "site/index.html"

$(DOCS_ENV)/ready: docs/requirements.txt
	@$(PY) -m venv --clear $(DOCS_ENV)
	@$(DOCS_ENV)/bin/python -m pip --quiet --disable-pip-version-check --no-input install --require-hashes -r docs/requirements.txt
	@touch $@

bench: $(READY) ## Measure what a trial costs beyond its training
	@$(PY) -m benchmarks.overhead $(ARGS)
	@$(PY) -m benchmarks.webui

RESOLVE := $(PY) -m uv pip compile --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --quiet --custom-compile-command "make lock"
IMAGES  := deploy/requirements

lock: $(READY) ## Resolve the dependencies again into requirements.lock and the images' lists (needs the network)
	@$(PIP) install uv
	@$(RESOLVE) pyproject.toml --extra all --extra dev --extra examples --extra gpu --extra parquet -o requirements.lock
	@$(RESOLVE) pyproject.toml -c requirements.lock --extra coordinator --extra dashboard -o $(IMAGES)/control.txt
	@$(RESOLVE) pyproject.toml -c requirements.lock --extra worker --extra tensorflow --extra scipy -o $(IMAGES)/worker.txt
	@$(RESOLVE) pyproject.toml $(IMAGES)/gpu.in -c requirements.lock --extra worker --extra tensorflow --extra scipy \
		--extra gpu -o $(IMAGES)/gpu.txt
	@$(RESOLVE) $(IMAGES)/build.in -c requirements.lock -o $(IMAGES)/build.txt
	@$(RESOLVE) docs/requirements.in -o docs/requirements.txt
	@$(RESOLVE) pyproject.toml tests/frameworks.in -c requirements.lock --extra embedded -o tests/frameworks.txt
	@for peer in hyperopt ray smac syne; do $(RESOLVE) benchmarks/peers/$$peer.in -c requirements.lock -o benchmarks/peers/$$peer.txt; done
	@$(RESOLVE) examples/digits/requirements.in -c requirements.lock -o examples/digits/requirements.txt

audit: $(READY) ## Ask the advisories of PyPI about every locked package (takes network)
	@$(PIP) install uv
	@for list in requirements.lock $(IMAGES)/*.txt docs/requirements.txt tests/frameworks.txt benchmarks/peers/*.txt examples/*/requirements.txt; do echo "== $$list"; \
		$(PY) -m uv tool run --quiet pip-audit --strict --disable-pip --require-hashes --requirement $$list || failed=1; \
	done; test -z "$$failed"

clean: ## Remove the environment and what tools left; studies in .highnoon stay
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Whole or not at all: pip takes a package that an interruption left half there for installed, so that an environment
# that was never finished is created again. What was downloaded is in pip's cache.
$(READY): requirements.lock pyproject.toml
	@echo "[1/3] Python environment in $(VENV)"
	@test ! -e $(UNFINISHED) && $(PY) -m pip --version >/dev/null 2>&1 || \
		{ python=$$(.ci/find-python) && "$$python" -m venv --clear $(VENV); }
	@touch $(UNFINISHED)
	@echo "[2/3] Locked packages (the first time several hundred megabytes)"
	@$(PIP) install --require-hashes -r requirements.lock
	@echo "[3/3] HighNoon itself"
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(UNFINISHED) && mv $(UNFINISHED) $@
