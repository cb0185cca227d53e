# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Payloads that core builds around a reference are the payloads that core builds."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from ansible_mitogen_svc.controller.compat import zip_references
from ansible_mitogen_svc.controller.payload import NotSplit, PayloadSplitter
from tests.unit.controller.conftest import text_of

ROOT = pathlib.Path(__file__).resolve().parents[3]
SCRIPT = """
import dataclasses, os, re, sys
sys.path.insert(0, sys.argv[1])
from ansible import constants
constants.DEFAULT_LOCAL_TMP = sys.argv[2]
from ansible.executor import module_common
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, module_loader
from ansible.template import Templar
from ansible_mitogen_svc.controller.compat import caches, zip_references
from ansible_mitogen_svc.controller.payload import PayloadSplitter
init_plugin_loader()

def build(word):
    variables = {"ansible_python_interpreter": "/usr/bin/python3"}
    return module_common.modify_module(
        module_name="ansible.builtin.ping", module_path=module_loader.find_plugin("ping"), module_args={"data": word},
        templar=Templar(loader=DataLoader(), variables=variables), task_vars=variables,
        module_compression="ZIP_DEFLATED").b_module_data

assert "load" in caches.install(), "this core is not one that references were compared with"
build("first")
whole = build("a word")
with zip_references.abridged():
    short = build("a word")
assert len(whole) - len(short) > 50000, (len(whole), len(short))
timeless = lambda text: re.sub(rb"\\ndate_time=.*", b"", text)
assert timeless(zip_references.whole(short)) == timeless(whole)
assert zip_references.whole(whole) == whole and timeless(whole) == timeless(build("a word"))
splitter = PayloadSplitter()
one, other = splitter.split(whole), splitter.split(short)
assert one.parameters == other.parameters and one.manifest is other.manifest, "the zip was read twice"
# Whoever writes core's file anew is believed.
place = os.path.join(sys.argv[2], "ansiballz_cache")
(name,) = [each for each in os.listdir(place) if not each.endswith(".lock")]
module = module_common._CachedModule.load(os.path.join(place, name))
dataclasses.replace(module, zip_data=b"ABCD").dump(os.path.join(place, name))
with zip_references.abridged():
    assert b"zip_data='ABCD'" in zip_references.whole(build("a word"))
print("done")
"""


def test_core_builds_the_same_payload_around_a_reference(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT), str(tmp_path)],
        capture_output=True, text=True, timeout=120, env={**os.environ, "ANSIBLE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout == "done\n", done.stderr


def test_a_payload_that_has_its_zip_stays_as_it_is() -> None:
    assert zip_references.whole(text_of("ping")) == text_of("ping")


def test_a_reference_that_nobody_gave_is_refused() -> None:
    forged = b"    _ansiballz_main(\nzip_data='ansible_mitogen_svc-zip-0',\nextensions={},\n)"
    with pytest.raises(ValueError, match="no zip is known"):
        zip_references.whole(forged)
    with pytest.raises(NotSplit, match="unknown ansiballz shape"):
        PayloadSplitter().split(forged)
