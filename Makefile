# The commands for contributors and CI. `make` alone lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
EXTRAS := local,databricks,optimizers,store,mcp,spark,notebooks,docs,dev
STAMP  := $(VENV)/.installed
# Processes for the unit tests: one per core, two in CI; to change it: make test WORKERS=4
WORKERS ?= $(if $(CI),2,auto)
# The marker expression of the unit tests, which run offline.
QUICK := not local_lm and not notebooks and not fresh_env
# The configuration file of the agent's commands: make serve CONFIG=configs/prod.yaml
CONFIG ?=

# No telemetry, and no download of a price list.
export MLFLOW_DISABLE_TELEMETRY := true
export LITELLM_LOCAL_MODEL_COST_MAP := True
export PIP_DISABLE_PIP_VERSION_CHECK := 1
ifneq ($(CONFIG),)
export ONETURN_CONFIG := $(CONFIG)
endif

.DEFAULT_GOAL := help
.PHONY: help setup test test-fast test-versions test-clients lint format docs demo weights compile log evaluate serve notebooks benchmark lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv and install the project at its pinned versions

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	@bash scripts/setup.sh "$(PYTHON)" "$(VENV)" "$(EXTRAS)"
	@touch $@

test: setup ## Run every test: units in parallel, the embedded LM, the notebooks, a fresh environment
	@echo "test 1/3: unit tests"
	$(BIN)/pytest -q -n $(WORKERS) --dist loadgroup -m "$(QUICK)"
	@echo "test 2/3: the embedded LM (its weights are downloaded the first time)"
	$(BIN)/python -m scripts.fetch_weights 0.5B
	@$(call marked,local_lm)
	@echo "test 3/3: the notebooks; a logged agent, and new projects from a wheel, in fresh environments (from the registry)"
	@$(call marked,notebooks or fresh_env,-n 2 --dist loadgroup)

# pytest exits with 5 if a marker selects no test, which is not a failure here.
marked = $(BIN)/pytest -q -m "$(1)" $(2) || { code=$$?; [ $$code -eq 5 ] || exit $$code; }

test-fast: setup ## Run the unit tests only
	$(BIN)/pytest -q -n $(WORKERS) --dist loadgroup -m "$(QUICK)"

test-versions: setup ## Run the unit tests on Python 3.10 to 3.13, newest and lowest dependencies; walk from a wheel on two
	$(BIN)/python -m scripts.version_matrix

# One client: make test-clients CLIENTS=litellm. After a change of the versions: make test-clients WRITE=1
CLIENTS ?=
test-clients: setup ## Ask a served agent through every client, each in its own environment
	$(BIN)/python -m tests.clients $(CLIENTS) $(if $(WRITE),--write-table)

lint: setup ## Check style, format, types and imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Fix style and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: setup ## Build the site of the documentation into build/site; a broken link fails
	$(BIN)/python -m scripts.configuration_docs
	$(BIN)/python -m scripts.conformance_docs
	$(BIN)/python -m scripts.reference_docs
	$(BIN)/zensical build --strict --clean
	@echo "docs: open build/site/index.html"

weights: setup ## Download the embedded LM's weights into the cache (not with CONFIG=…)
	@[ -n "$(CONFIG)" ] || $(BIN)/python -m scripts.fetch_weights 1.5B

demo: weights ## Ask the agent a few questions, on this machine
	$(BIN)/oneturn demo

compile: weights ## Compile the agent's prompts
	$(BIN)/oneturn compile

log: weights ## Log the agent as an MLflow model
	$(BIN)/oneturn log

evaluate: weights ## Evaluate the agent on its test set
	$(BIN)/oneturn evaluate

serve: weights ## Serve the agent over the Responses protocol
	$(BIN)/oneturn serve

notebooks: weights ## Execute every notebook; with WRITE=1, keep the outputs in the files
	$(BIN)/pytest -m notebooks $(if $(WRITE),--write-notebooks)

benchmark: weights ## Measure quality, speed and cost
	$(BIN)/python -m benchmarks

lock: setup ## Resolve pyproject.toml into constraints.txt again
	@echo "lock: resolving for Python 3.10 to 3.13"
	@{ sed -n '/^#/p' constraints.txt; \
	   $(BIN)/uv pip compile -q --universal --python-version 3.10 --all-extras \
	     --no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml; } > constraints.new \
	  && mv constraints.new constraints.txt || { rm -f constraints.new; exit 1; }
	@echo "lock: constraints.txt is updated. Next: make test"

clean: ## Remove .venv and every cache (not the data, not mlflow.db)
	rm -rf $(VENV) .versions build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
