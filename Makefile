# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
#
#   make demo      one playbook under core's linear and under ours: times, recaps, differences
#   make test      lint, type check, unit and integration tests
#   make test-all  the same with the tests that take minutes, other strategies and workers, the matrix of versions, packaging,
#                  the checks, the molecule scenarios and the examples: hours; see PARTS below
#   make bench     the scenarios of bench/ under core, ansible_mitogen and ours (BENCH_OPTIONS="--scenario first")
#   make molecule  the molecule scenarios
#   make examples  a small site on two containers, before and after
#   make checks    sessions of nox: licences, artifacts, docs, ansible-lint, ansible-test sanity; nox -l lists all (NOX_OPTIONS="-s docs")
#   make wheel collection clean
#
# Each makes the virtual environment it needs. PYTHON=... chooses the interpreter, PYTEST_OPTIONS=... is passed on.

# The environment of the tests has the checkout (editable); demo and bench have the wheel, as a user would.
VENV ?= .venv
USER_VENV ?= .venv-user
PIP_INSTALL := pip --disable-pip-version-check install --quiet
SOURCES := $(shell find ansible_mitogen_svc plugins meta -type f -not -name '*.pyc' 2>/dev/null)
# No test may hang the run: pytest-timeout ends it, with all threads' tracebacks.
PYTEST := $(VENV)/bin/python -m pytest --timeout=600 $(PYTEST_OPTIONS)

demo: $(USER_VENV)/ready
	$(USER_VENV)/bin/python demo/run.py $(DEMO_OPTIONS)

# With worker processes only, `make test` looks at what touches most of them; see tests/README.md for the switches.
# What the targets give under core's strategy is found out once for both.
test: export RIG_CORE_RESULTS = $(CURDIR)/build/core-test
test: lint packages
	rm -rf $(RIG_CORE_RESULTS)
	$(PYTEST) -m "not long" tests/unit tests/integration
	SVC_TEST_WORKERS=fork $(PYTEST) -m "not long" -k "ping or become or includes" tests/integration/test_targets.py

# Each part runs whatever became of those before it, the short ones first; the end shows what came of each, and its minutes.
# Each is a target of its own, and PARTS="molecule examples" chooses some. tests/README.md has the times.
PARTS ?= lint checks packaging examples molecule everything forked free host_pinned matrix

test-all: packages
	@status=0; told=; for part in $(PARTS); do \
	  printf '\n===== %s, %s\n' "$$part" "$$(date)"; began=$$(date +%s); \
	  if $(MAKE) --no-print-directory $$part; then came=passed; else came=FAILED; status=1; fi; \
	  told="$$told$$(printf '%-12s %-7s %4d min' $$part $$came $$((($$(date +%s) - began + 30) / 60)))|"; \
	done; printf '\n===== test-all\n%s' "$$told" | tr '|' '\n'; exit $$status

everything: packages
	$(PYTEST) tests/unit tests/integration

packaging: packages
	$(PYTEST) tests/packaging

forked: packages
	SVC_TEST_WORKERS=fork $(PYTEST) -m "not long" tests/integration

# What the targets give under core's strategy is found out once for both kinds of workers.
free host_pinned: packages
	rm -rf build/core-$@; status=0; for workers in auto fork; do \
	  RIG_CORE_RESULTS=$(CURDIR)/build/core-$@ SVC_TEST_STRATEGY=$@ SVC_TEST_WORKERS=$$workers \
	    $(PYTEST) tests/integration/test_targets.py || status=1; \
	done; exit $$status

matrix: packages
	$(VENV)/bin/$(PIP_INSTALL) nox
	$(VENV)/bin/nox -s tests -- -m "not long" tests/unit tests/integration

molecule: packages
	$(VENV)/bin/$(PIP_INSTALL) molecule
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" molecule test --all

examples: packages
	$(VENV)/bin/python examples/run.py

NOX_OPTIONS ?= -s licences artifacts docs collection_docs changelog lint sanity
checks: $(VENV)/ready
	$(VENV)/bin/$(PIP_INSTALL) nox
	$(VENV)/bin/nox $(NOX_OPTIONS)

bench: $(USER_VENV)/ready
	$(USER_VENV)/bin/python bench/run.py $(BENCH_OPTIONS)

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# Debian packages the tests need, as root; without root what is missing is named, and the tests that need it say so.
packages: $(VENV)/ready
	-cd tests && ../$(VENV)/bin/python -c 'from rig import debian; debian.ensure_commands(*debian.NEEDED)'

wheel: $(VENV)/ready
	$(VENV)/bin/pip wheel --quiet --no-deps --wheel-dir dist .

collection: $(VENV)/ready
	mkdir -p dist
	$(VENV)/bin/ansible-galaxy collection build --force --output-path dist .

$(VENV)/ready: pyproject.toml tools/find_python.sh tools/hatch_build.py
	python=$$(sh tools/find_python.sh) && "$$python" -m venv $(VENV)
	$(VENV)/bin/$(PIP_INSTALL) --editable '.[test]'
	touch $@

$(USER_VENV)/ready: pyproject.toml galaxy.yml tools/find_python.sh tools/hatch_build.py $(SOURCES)
	python=$$(sh tools/find_python.sh) && "$$python" -m venv $(USER_VENV)
	$(USER_VENV)/bin/$(PIP_INSTALL) .
	$(USER_VENV)/bin/$(PIP_INSTALL) --force-reinstall --no-deps .
	touch $@

clean:
	rm -rf $(VENV) $(USER_VENV) .dev build dist

.PHONY: demo test test-all everything packaging forked free host_pinned matrix molecule examples checks bench lint packages wheel \
	collection clean
