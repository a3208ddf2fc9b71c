# Needs Python 3.11 and make. `make run` serves the clinic on http://127.0.0.1:5000.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIPENV_VERSION = 2026.10.3
PY = .venv/bin/python
FLASK = FLASK_DEBUG=0 .venv/bin/flask --app app
INSTALLED = .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup migrate run demo test drill check bench robustness lock clean

help:  ## Show this list
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## Install the locked packages into .venv; starts nothing

# Every file is checked against the hashes of the lock. The stamp comes last: a broken setup is repeated.
$(INSTALLED): requirements.txt requirements-dev.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Python 3.11 is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(PY) || "$(PYTHON)" -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements.txt -r requirements-dev.txt
	@touch $@

migrate: setup  ## Bring the database to the newest schema
	@$(FLASK) db upgrade

run: migrate  ## Serve on 127.0.0.1; the first run makes the secrets and the first admin
	@$(PY) create_admin.py --first
	@FLASK_DEBUG=0 HOST=127.0.0.1 exec $(PY) -m gunicorn -c gunicorn.conf.py 'app:create_app()'

demo: migrate  ## Fill the database with a made-up clinic
	@$(FLASK) demo load

test: setup  ## Run the tests; ARGS="-k word" narrows them down
	@$(PY) -m pytest -n 2 $(ARGS)

drill: setup  ## Back up the whole made-up clinic, restore it and verify it, on both databases
	@CLINIC_ROBUSTNESS=long $(PY) -m pytest tests/robustness/test_backups.py -n 2 -k demo_clinic

check: setup  ## Everything that must pass before a change lands
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy --strict
	@$(MAKE) --no-print-directory test drill

robustness: setup  ## Attack the clinic for hours; ARGS="-k races" narrows it down
	@CLINIC_ROBUSTNESS=long $(PY) -m pytest tests/robustness -n 0 -p no:cacheprovider -o faulthandler_timeout=0 $(ARGS)

bench: setup  ## Measure the clinic beside two yardsticks; ARGS="--help" tells more
	@$(PY) -m tests.benchmarks $(ARGS)

# The settings of this machine's pip stay out of the lock.
lock:  ## Resolve the Pipfile anew and write the lock and both requirements files
	@test -x .venv-pipenv/bin/pipenv || "$(PYTHON)" -m venv .venv-pipenv
	@.venv-pipenv/bin/pip install --quiet --disable-pip-version-check pipenv==$(PIPENV_VERSION)
	@env -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL -u PIP_FIND_LINKS PIP_CONFIG_FILE=/dev/null \
		PIPENV_VENV_IN_PROJECT=1 .venv-pipenv/bin/pipenv lock
	@.venv-pipenv/bin/pipenv requirements --hash --exclude-index >requirements.txt
	@.venv-pipenv/bin/pipenv requirements --dev-only --hash --exclude-index >requirements-dev.txt

clean:  ## Remove what setup and tests made; keeps .env and the database
	@rm -rf .venv .venv-pipenv .mypy_cache .pytest_cache .ruff_cache .hypothesis
