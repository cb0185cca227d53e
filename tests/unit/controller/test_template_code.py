# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Templates whose code is remembered give what core's give, and are compiled once."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader()
from ansible._internal._datatag._tags import Origin, TrustedAsTemplate
from ansible._internal._templating import _jinja_bits
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_mitogen_svc.controller.compat import template_code
import jinja2
if sys.argv[2] == "remember":
    assert template_code.install() and template_code.install()
compiled = []
core = jinja2.Environment._compile
jinja2.Environment._compile = lambda self, source, name: compiled.append(source) or core(self, source, name)
trusted = TrustedAsTemplate().tag
texts = ["echo {{ item }}", "{{ item }}", "{{ item.a[0] }}/{{ other }}.conf", "{{ item | upper }}", "{{ missing }}",
         "{{ item.missing }}", "{{ not }}", "{{ 'a' ~ item }}", "{% if item %}x{% endif %}", "{{item}}\\n",
         "<% item %>", "a{{ other }}b{{other}}c", "{{ '{{ item }}' }}", "{{ nested }}",
         "#jinja2: trim_blocks: False\\n{{ other }}"]
for item in ({"a": [1, 2]}, "text", None, [], 7):
    values = {"item": item, "other": item, "nested": trusted("{{ other }}")}
    for text in map(trusted, texts):
        templar = Templar(loader=DataLoader(), variables=values)
        for options in ({}, {"variable_start_string": "<%", "variable_end_string": "%>"}):
            try:
                print(repr(templar.copy_with_new_env(**options).template(text)))
            except Exception as error:
                print(type(error).__name__, error)
    for text in ("item", "item.a[0]", "missing.attribute", "item is defined", "other", "not"):
        try:
            print(repr(templar._engine.evaluate_expression(trusted(text))))
        except Exception as error:
            print(type(error).__name__, error)
print(len(compiled), file=sys.stderr)
"""


def rendered(mode: str) -> tuple[str, int]:
    command = [sys.executable, "-c", SCRIPT, str(ROOT), mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, int(done.stderr.split()[-1])


def test_results_and_errors_are_those_of_core_and_plain_templates_are_compiled_once() -> None:
    plain, compiled = rendered("plain")
    remembered, fewer = rendered("remember")
    assert remembered == plain and plain.count("\n") == 5 * (15 * 2 + 6)
    assert fewer < compiled / 2


BROKEN = """
import inspect, sys
import jinja2
from ansible._internal._templating import _jinja_bits
from ansible_mitogen_svc.controller.compat import template_code
def unreadable(*_):
    raise OSError("could not get source code")
core = _jinja_bits.AnsibleEnvironment.compile
exec(sys.argv[1])
assert not template_code.install() and _jinja_bits.AnsibleEnvironment.compile is core
"""


@pytest.mark.parametrize(
    "change",
    [
        "del jinja2.Environment._generate",
        "del _jinja_bits.AnsibleLexer",
        "del _jinja_bits._TEMPLATE_OVERRIDE_FIELD_NAMES",
        "inspect.getsource = unreadable",
        "_jinja_bits.AnsibleLexer = 7",
    ],
)
def test_where_core_or_jinja_has_another_form_or_no_sources_nothing_is_replaced(change: str) -> None:
    command = [sys.executable, "-c", BROKEN, change]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
