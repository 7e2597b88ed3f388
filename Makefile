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

# Compiled once, and not in each of the hundreds of processes that the tests start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-16s %s\n' "$$name" "$$text"; done

# --- The environment: the locked versions, and this package editable. The stamp makes a second run cost nothing.

.PHONY: venv
venv: $(READY) ## Build .venv (everything below does it when needed)

$(VENV)/.made: requirements.lock pyproject.toml airflow_provider_smtpcm/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || { \
		echo "$(PYTHON) is not Python 3.11, 3.12, 3.13 or 3.14: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time this takes a minute or two."
	@# Without a look at what depends on what: the lock is whole, and pip stumbles over extras beside hashes.
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.lock
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
	@# They start a PostgreSQL and a Redis of their own too; Debian's are installed without a server that runs, now or
	@# after the next boot. Who wants one: systemctl unmask redis-server, pg_createcluster.
	@dpkg --status postgresql-common >/dev/null 2>&1 || { \
		$(ROOT) mkdir -p /etc/postgresql-common/createcluster.d && echo "create_main_cluster = false" | \
		$(ROOT) tee /etc/postgresql-common/createcluster.d/no-cluster-for-tests.conf >/dev/null; }
	@dpkg --status redis-server >/dev/null 2>&1 || { \
		$(ROOT) mkdir -p /etc/systemd/system && \
		$(ROOT) ln -sf /dev/null /etc/systemd/system/redis-server.service; }
	$(ROOT) env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install --yes --quiet \
		--no-install-recommends $(SYSTEM_PACKAGES)
	@# Debian's Exim and Postfix exclude each other: of Exim, the tests use the program alone.
	@command -v exim4 >/dev/null || { folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && chmod 755 "$$folder" && \
		cd "$$folder" && apt-get download --quiet exim4-daemon-light && \
		dpkg-deb --extract exim4-daemon-light_*.deb . && $(ROOT) install -m 755 usr/sbin/exim4 /usr/local/sbin/; }

# --- Seeing it work

.PHONY: demo
demo: $(READY) ## Deliver a mail: a real Airflow, a relay that demands Windows Authentication, a DAG run
	@$(BIN)/python -m demo $(ARGS)

.PHONY: ui
ui: $(READY) ## The same Airflow, left running: look at the connection form and press Test
	@$(BIN)/python -m demo ui $(ARGS)

# --- Working on it

# In more processes than there are processors: some tests wait, and those with real servers wait most of the time.
PROCESSORS := $(shell getconf _NPROCESSORS_ONLN)
PYTEST     := $(BIN)/python -m pytest --numprocesses

.PHONY: test
test: $(READY) ## Run the tests that need nothing but Python; ARGS="-k form" goes to pytest
	@$(PYTEST) $$(($(PROCESSORS) + 1)) -m "not slow" $(ARGS)

.PHONY: test-all
test-all: $(READY) ## Run all tests: those with real servers, whole Airflows and browsers too
	@$(PYTEST) $$(($(PROCESSORS) * 2)) $(ARGS)

# Pythons that pyenv keeps are found without being switched on.
PYENV_PYTHONS := $(wildcard $(HOME)/.pyenv/versions/3.1[1234].*/bin)

.PHONY: versions
versions: $(VENV)/.made ## Run the tests on each Airflow in each Python; ARGS="-t oldest -p 3.12 -- -k form"
	@PATH="$(subst $() $(),:,$(PYENV_PYTHONS) $(PATH))" $(BIN)/nox $(ARGS)

.PHONY: torture
torture: $(READY) ## Break everything that can break, and count what was lost and what was sent twice
	@$(PYTEST) $$(($(PROCESSORS) + 1)) tests/torture tests/integration/test_kill_in_a_merge.py \
		tests/integration/test_celery.py tests/integration/test_postfix_faults.py $(ARGS)

.PHONY: lint
lint: $(READY) ## ruff, its formatter, mypy --strict, pyright, ty, zizmor, and the documents as a site
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --diff --quiet
	@$(BIN)/mypy
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/ty check --output-format concise --python $(VENV)
	@$(BIN)/zizmor --offline --quiet --no-progress .github
	@$(MAKE) --no-print-directory docs

.PHONY: docs
docs: $(READY) ## Build the documents as a site into site/; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.PHONY: format
format: $(READY) ## Fix what ruff can fix
	@$(BIN)/ruff check --fix --exit-zero --quiet
	@$(BIN)/ruff format

.PHONY: bench
bench: $(READY) ## Compare with the peers (20 minutes); ARGS=--quick, ARGS="--only single", ARGS=--write for docs/performance.md
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: readme
readme: $(READY) ## Write the documents' connection table from the code
	@$(BIN)/python -m tests.readme

.PHONY: matrix
matrix: $(READY) ## Sign in to every server in every way, and write the documents' table of it
	@WRITE_MATRIX=1 $(BIN)/python -m pytest tests/integration/test_sign_in_matrix.py $(ARGS)

.PHONY: screenshots
screenshots: $(READY) ## Take all pictures of the documents again (docs/images)
	@SCREENSHOTS=1 $(BIN)/python -m pytest -k picture tests/integration/connection_form \
		tests/integration/test_alert_page.py tests/integration/test_inbox_page.py tests/ssis/report $(ARGS)

.PHONY: lock
lock: ## Resolve pyproject.toml into the locks of every Airflow again; ARGS=--upgrade takes newer versions
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && \
	$(PYTHON) -m venv "$$tools" && "$$tools/bin/pip" install --quiet --disable-pip-version-check uv && \
	UV_CUSTOM_COMPILE_COMMAND="make lock" "$$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --extra dev --extra lint --extra testing \
		--constraint .ci/airflow-version.txt $(ARGS) --output-file requirements.lock pyproject.toml && \
	printf 'gssapi\nkrb5\n' | UV_CUSTOM_COMPILE_COMMAND="make lock" "$$tools/bin/uv" pip compile --quiet --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--constraint requirements.lock $(ARGS) --output-file requirements-kerberos.lock - && \
	for airflow in requirements/airflow-*.in; do \
		UV_CUSTOM_COMPILE_COMMAND="make lock" "$$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 \
			--generate-hashes --no-emit-index-url --no-emit-find-links --extra dev --extra testing \
			--exclude-newer "$$(sed -n 's/^# As of \([0-9-]*\):.*/\1/p' "$$airflow")T00:00:00Z" \
			--constraint "$$airflow" $(ARGS) --output-file "$${airflow%.in}.lock" pyproject.toml || exit; done

.PHONY: dist
dist: $(READY) ## Build the wheel and the sdist into dist/, and check them; TAG=v1.2.3 checks version and changelog too
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist
	@$(BIN)/twine check --strict dist/*
	@$(BIN)/python -m tests.release $${TAG+--tag "$$TAG"} dist/*

# As they were when Airflow 3.1.8 had come out: what it does not pin has long outgrown it.
.PHONY: floor
floor: ## Resolve the oldest that pyproject.toml allows into requirements/floor.lock
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && \
	$(PYTHON) -m venv "$$tools" && "$$tools/bin/pip" install --quiet --disable-pip-version-check uv && \
	UV_CUSTOM_COMPILE_COMMAND="make floor" "$$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 \
		--resolution lowest-direct --exclude-newer 2026-03-12 --no-annotate --no-emit-index-url --no-emit-find-links \
		--extra fast --extra testing --output-file requirements/floor.lock pyproject.toml

.PHONY: clean
clean: ## Remove .venv and every cache
	rm -rf $(VENV) dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .nox
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
