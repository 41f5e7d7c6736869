# Every command we type. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs new-driver bench e2e conformance constraints clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "crmbridge needs Python 3.11 or later; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV) (about a minute, once)"
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq --disable-pip-version-check --no-input --require-hashes -r constraints.txt
	@$(BIN)/pip install -qq --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
	@touch $(STAMP)

setup: $(STAMP)  ## the virtual environment, pinned and hashed

demo: $(STAMP)  ## everything up on the embedded default; ONCE=1 ends when all is delivered
	@$(BIN)/crmbridge demo $(if $(ONCE),--once)

test: check  ## what `make check` does, then all tests that need nothing but this folder
	@$(BIN)/pytest -q -n 2 --dist loadfile -m "not real_odoo and not browser and not faults"

check: $(STAMP)  ## format, lint, types, arrows, docs in step
	@$(BIN)/ruff format --check -q . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/ruff check -q .
	@$(BIN)/lint-imports --no-logo > .import-linter.log 2>&1 || { cat .import-linter.log; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/python tools/make_docs.py --check

docs: $(STAMP)  ## write docs/reference and the generated parts of the README
	@$(BIN)/python tools/make_docs.py

new-driver: $(STAMP)  ## scaffold a driver: NAME=pipedrive; OUTSIDE=folder for a package of its own; DRY_RUN=1
	@$(BIN)/python tools/new_driver.py $(if $(NAME),$(NAME),"") $(if $(DISPLAY_NAME),--display "$(DISPLAY_NAME)") \
		$(if $(OUTSIDE),--outside $(OUTSIDE)) $(if $(DRY_RUN),--dry-run)

bench: $(STAMP)  ## all benchmarks, small; each also runs alone with --help
	@$(BIN)/python -m benchmarks.run

conformance: $(STAMP)  ## every driver against its emulator, driver by topic
	@$(BIN)/crmbridge conformance --all

constraints:  ## compile constraints.txt again (needs uv on the path)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate -q -o constraints.txt

clean:  ## remove the virtual environment and the demo's folder
	rm -rf $(VENV) .demo
