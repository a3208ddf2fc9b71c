# Needs Python 3.11 to 3.14 and make. `make run` serves the clinic on http://127.0.0.1:5000.

SUPPORTED = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$name -c '$(SUPPORTED)' 2>/dev/null && command -v $$name && break; done)
PIPENV_VERSION = 2026.10.3
PIP_AUDIT_VERSION = 2.10.1
CYCLONEDX_VERSION = 7.5.0
VENV = .venv
PY = $(VENV)/bin/python
# Every file is checked against the hashes of the lock. Python compiles a module when it first imports it:
# compiling all of them takes longer than the download.
INSTALL = $(PY) -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes
FLASK = FLASK_DEBUG=0 $(VENV)/bin/flask --app app
RUNTIME = $(VENV)/.runtime
DEVELOPMENT = $(VENV)/.development

.DEFAULT_GOAL := help
.PHONY: help setup migrate run demo test test-all drill check audit sbom bench robustness lock clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST)

setup: $(DEVELOPMENT)  ## Install all locked packages into .venv; starts nothing

# The stamp comes last: an interrupted installation is repeated.
$(RUNTIME): requirements.txt
	@"$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null || \
		{ echo "Install Python 3.11 to 3.14, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(PY) || { echo "Create the Python environment $(VENV) ..."; "$(PYTHON)" -m venv $(VENV); }
	@echo "Install the packages of the server into $(VENV), about 80 MB ..."
	@$(INSTALL) -r requirements.txt
	@touch $@

$(DEVELOPMENT): $(RUNTIME) requirements-dev.txt
	@echo "Install the packages for development into $(VENV), about 90 MB ..."
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

migrate: $(RUNTIME)  ## Upgrade the database to the newest schema
	@$(FLASK) db upgrade

run: $(RUNTIME)  ## Serve on 127.0.0.1; the first run creates secrets, database and first admin
	@FLASK_DEBUG=0 HOST=127.0.0.1 exec $(PY) run.py

demo: migrate  ## Load synthetic patients, visits and bills into the database
	@$(FLASK) demo load

# More processes than cores: many tests wait for servers, locks and timeouts. With `worksteal` a process gets
# whole files: fewer processes start the servers of the robustness tests. Compiled modules are kept.
test: setup  ## Run the tests; ARGS="-k word" selects some
	@PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n 3 --dist worksteal $(ARGS)

test-all:  ## Run the tests on each Python 3.11 to 3.14 of this machine
	@for version in 3.11 3.12 3.13 3.14; do \
		python=$$(ls "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python 2>/dev/null | tail -n 1); \
		python=$${python:-$$(command -v python$$version)}; \
		"$$python" -c '$(SUPPORTED)' 2>/dev/null || { echo "No Python $$version here."; continue; }; \
		echo "Python $$version:"; \
		$(MAKE) --no-print-directory test VENV=.venv-$$version PYTHON="$$python" || exit 1; \
	done

drill: PATIENTS = 615
drill: setup  ## Back up the synthetic clinic, restore it and verify it, on both databases; PATIENTS=615
	@CLINIC_ROBUSTNESS=long CLINIC_DRILL_PATIENTS=$(PATIENTS) $(PY) -m pytest tests/robustness/test_backups.py -n 2 -k demo_clinic

check: setup  ## Run every check that a change must pass
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/codespell
	@$(PY) -m mypy --strict
	@$(MAKE) --no-print-directory audit
	@$(MAKE) --no-print-directory test ARGS="--cov --cov-report=term:skip-covered"
	@$(MAKE) --no-print-directory drill PATIENTS=60

# The advisories are read from PyPI. An old release with known vulnerabilities shows whether they can be read:
# a mirror of packages has none, and every package would then look safe.
ADVISORIES = https://pypi.org/pypi/flask/0.12/json
READABLE = import json, urllib.request as r; assert json.load(r.urlopen("$(ADVISORIES)", timeout=10))["vulnerabilities"]
audit:  ## Look for known vulnerabilities of the locked packages; skipped without advisories
	@if ! "$(PYTHON)" -c '$(READABLE)' 2>/dev/null; then \
		echo "SKIPPED: audit of the dependencies. $(ADVISORIES) shows no advisories from here."; exit 0; fi; \
	set -e; test -x .venv-audit/bin/pip-audit || "$(PYTHON)" -m venv .venv-audit; \
	.venv-audit/bin/pip install --quiet --disable-pip-version-check pip-audit==$(PIP_AUDIT_VERSION); \
	.venv-audit/bin/pip-audit --strict --progress-spinner=off --disable-pip --require-hashes -r requirements.txt

sbom:  ## Write the list of the packages of the server (CycloneDX) to sbom.json
	@test -x .venv-sbom/bin/cyclonedx-py || "$(PYTHON)" -m venv .venv-sbom
	@.venv-sbom/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom==$(CYCLONEDX_VERSION)
	@.venv-sbom/bin/cyclonedx-py requirements requirements.txt --output-reproducible \
		--of JSON --output-file sbom.json
	@echo "Written: sbom.json"

robustness: setup  ## Run the long robustness tests, for hours; ARGS="-k races" selects some
	@CLINIC_ROBUSTNESS=long $(PY) -m pytest tests/robustness -n 0 -p no:cacheprovider -o faulthandler_timeout=0 $(ARGS)

bench: setup  ## Measure the server beside two baselines; ARGS="--help" lists the options
	@$(PY) -m tests.benchmarks $(ARGS)

# Without this machine's pip settings: another index must not get into the lock.
lock:  ## Resolve the Pipfile and write the lock and both requirements files
	@test -x .venv-pipenv/bin/pipenv || "$(PYTHON)" -m venv .venv-pipenv
	@.venv-pipenv/bin/pip install --quiet --disable-pip-version-check pipenv==$(PIPENV_VERSION)
	@env -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL -u PIP_FIND_LINKS PIP_CONFIG_FILE=/dev/null \
		PIPENV_VENV_IN_PROJECT=1 .venv-pipenv/bin/pipenv lock
	@.venv-pipenv/bin/pipenv requirements --hash --exclude-index >requirements.txt
	@.venv-pipenv/bin/pipenv requirements --dev-only --hash --exclude-index >requirements-dev.txt

clean:  ## Remove environments and caches; keeps .env and the database
	@rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
