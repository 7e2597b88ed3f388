# Everything a developer types. `make` alone lists it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ROOT   := $(if $(filter 0,$(shell id -u)),,sudo)
ARGS   ?=

# Kerberos's libraries are compiled, against headers that `make system-packages` installs; without them its tests are
# left out.
READY  := $(VENV)/.made $(if $(shell command -v krb5-config),$(VENV)/.kerberos)

SYSTEM_PACKAGES := $(shell sed 's/\#.*//' .ci/system-packages.txt)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-16s %s\n' "$$name" "$$text"; done

# --- The environment: the locked versions, and this package editable. The stamp makes a second run cost nothing.

.PHONY: venv
venv: $(READY) ## Build .venv (everything below does it when needed)

$(VENV)/.made: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time this takes a minute or two."
	@$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.kerberos: requirements-kerberos.lock $(VENV)/.made
	@echo "Compiling the Kerberos libraries into $(VENV)."
	@$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-kerberos.lock
	@touch $@

.PHONY: system-packages
system-packages: ## Install the Debian packages that some tests need (as root, or by sudo)
	@# The tests start a Postfix of their own; unconfigured, Debian's starts none beside it on this machine.
	@dpkg --status postfix >/dev/null 2>&1 || \
		echo "postfix postfix/main_mailer_type select No configuration" | $(ROOT) debconf-set-selections
	$(ROOT) env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install --yes --quiet \
		--no-install-recommends $(SYSTEM_PACKAGES)

# --- Seeing it work

.PHONY: demo
demo: $(READY) ## Deliver a mail: a real Airflow, a relay that demands Windows Authentication, a DAG run
	@$(BIN)/python -m demo $(ARGS)

.PHONY: ui
ui: $(READY) ## The same Airflow, left running: look at the connection form and press Test
	@$(BIN)/python -m demo ui $(ARGS)

# --- Working on it

.PHONY: test
test: $(READY) ## Run the tests; ARGS="-k form" goes to pytest
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: torture
torture: $(READY) ## Break everything that can break, and count what was lost and what was sent twice
	@$(BIN)/python -m pytest tests/torture tests/integration/test_kill_in_a_merge.py \
		tests/integration/test_postfix_faults.py $(ARGS)

.PHONY: lint
lint: $(READY) ## ruff, its formatter, and mypy --strict
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --diff --quiet
	@$(BIN)/mypy

.PHONY: format
format: $(READY) ## Let ruff mend what it can
	@$(BIN)/ruff check --fix --exit-zero --quiet
	@$(BIN)/ruff format

.PHONY: bench
bench: $(READY) ## Compare with the peers (12 minutes); ARGS=--quick, ARGS="--only tls", ARGS=--write for the README
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: readme
readme: $(READY) ## Write the README's connection table from the code
	@$(BIN)/python -m tests.readme

.PHONY: matrix
matrix: $(READY) ## Sign in to every server in every way, and write the README's table of it
	@WRITE_MATRIX=1 $(BIN)/python -m pytest tests/integration/test_sign_in_matrix.py $(ARGS)

.PHONY: screenshots
screenshots: $(READY) ## Take the README's picture of the connection form again
	@SCREENSHOTS=1 $(BIN)/python -m pytest tests/integration/test_connection_form.py $(ARGS)

.PHONY: lock
lock: ## Resolve pyproject.toml into requirements.lock again; ARGS=--upgrade takes newer versions
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && \
	$(PYTHON) -m venv "$$tools" && "$$tools/bin/pip" install --quiet --disable-pip-version-check uv && \
	UV_CUSTOM_COMPILE_COMMAND="make lock" "$$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links --extra dev --extra testing \
		--constraint .ci/airflow-version.txt $(ARGS) --output-file requirements.lock pyproject.toml && \
	printf 'gssapi\nkrb5\n' | UV_CUSTOM_COMPILE_COMMAND="make lock" "$$tools/bin/uv" pip compile --quiet --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--constraint requirements.lock $(ARGS) --output-file requirements-kerberos.lock -

.PHONY: clean
clean: ## Remove .venv and every cache
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
