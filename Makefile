# Everything a working copy needs: Python 3.11 or later, make, and a package index for pip.
# Environments live in .venv (and .venv-verify) and are renewed when pyproject.toml or constraints.txt change.

# The first interpreter that is new enough; say `make PYTHON=/path/to/python` to choose another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
WORKERS ?= 2

BIN := .venv/bin
PINS := pyproject.toml constraints.txt
# What pip says goes to a file, and is shown where it fails.
PIP_INSTALL = $(@D)/bin/python -m pip install --progress-bar off -c constraints.txt
QUIETLY = > $(@D)/install.log 2>&1 || { cat $(@D)/install.log >&2; exit 1; }

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test pytest lint types imports docs serve format verify constraints clean distclean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

install: .venv/.core ## the package, editable, in .venv
	@echo "physml is installed: . .venv/bin/activate, or .venv/bin/physml --help"

demo: .venv/.core ## simulate, train, roll out, report: a few minutes on two cores
	$(BIN)/python experiments/demo/run.py

test: lint types imports docs pytest ## all that must pass before a commit

pytest: .venv/.dev ## tests, without those marked slow
	OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -n $(WORKERS) --durations=10

lint: .venv/.dev ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/.dev ## mypy over the package
	$(BIN)/mypy

imports: .venv/.dev ## the import directions of docs/design.md
	$(BIN)/lint-imports

docs: .venv/.dev ## the documentation, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

serve: .venv/.dev ## the documentation, on this machine, renewed while you write
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

format: .venv/.dev ## let ruff mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

verify: .venv-verify/.verify .venv-verify/well ## slow tests and parity with other packages, in .venv-verify
	MPLBACKEND=Agg .venv-verify/bin/python -m pytest -m slow --durations=10

constraints: ## renew the pins from what pip takes today
	rm -rf .venv-pins
	$(PYTHON) -m venv .venv-pins
	.venv-pins/bin/python -m pip install -q "$$(grep '^torch==' constraints.txt)" -e '.[dev,docs,verify]'
	sed '/^[^#]/,$$d' constraints.txt > .venv-pins/new.txt
	.venv-pins/bin/python -m pip freeze --all --exclude-editable --exclude pip \
		| sed 's/+.*//' | grep -v -e '^nvidia-' -e '^triton==' >> .venv-pins/new.txt
	mv .venv-pins/new.txt constraints.txt
	rm -rf .venv-pins

clean: ## remove what the targets above made, but not the environments
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find physml tests experiments docs -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environments too
	rm -rf .venv .venv-verify .venv-pins

# An environment that is already there is kept: that is how to bring your own build of torch.
.venv/pyvenv.cfg .venv-verify/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "physml needs Python 3.11 or later, and none was found;" \
		"install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "physml needs Python 3.11 or later; $(PYTHON) is not: make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv $(@D)

.venv/.core: $(PINS) | .venv/pyvenv.cfg
	@echo "Installing physml into .venv (a minute or two, the first time) ..."
	@$(PIP_INSTALL) -e . $(QUIETLY)
	@touch $@

.venv/.dev: $(PINS) | .venv/pyvenv.cfg
	@echo "Installing physml and its checks into .venv (a minute or two, the first time) ..."
	@$(PIP_INSTALL) -e '.[dev,docs]' $(QUIETLY)
	@touch .venv/.core $@

# A folder of its own: the-well pins an fsspec that other packages refuse.
.venv-verify/well: | .venv-verify/.verify
	@.venv-verify/bin/python -m pip install --progress-bar off --no-deps --target $@ \
		the-well==1.2.0 fsspec==2024.10.0 einops==0.8.2 > .venv-verify/well.log 2>&1 || { \
		cat .venv-verify/well.log >&2; rm -rf $@; exit 1; }

.venv-verify/.verify: $(PINS) | .venv-verify/pyvenv.cfg
	@echo "Installing physml and what it is compared with into .venv-verify (a minute or two, the first time) ..."
	@$(PIP_INSTALL) -e '.[verify]' $(QUIETLY)
	@touch $@
