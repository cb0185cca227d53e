# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
#
# make demo | test | test-all | bench | wheel | collection | clean

PYTHON := $(shell sh tools/find_python.sh)
VENV ?= .venv

wheel: $(VENV)/ready
	$(VENV)/bin/pip wheel --no-deps --wheel-dir dist .

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable '.[test]'
	touch $@

.PHONY: wheel
