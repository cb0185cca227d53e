# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Splitting what core builds."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile

import pytest

from ansible_mitogen_svc.controller.payload import NotSplit, PayloadSplitter, read_zip
from ansible_mitogen_svc.target import child
from ansible_mitogen_svc.wire import frames
from tests.unit.controller.conftest import text_of


def test_a_module_that_core_builds_is_split_into_files_and_parameters() -> None:
    payload = PayloadSplitter().split(text_of("ping"))
    assert payload.module == "ansible.modules.ping"
    assert "ansible/modules/ping.py" in payload.manifest.paths.values()
    assert json.loads(payload.parameters)["ANSIBLE_MODULE_ARGS"]["_ansible_module_name"] == "ping"
    assert payload.arguments["profile"] == "legacy"
    for digest, content in payload.manifest.files.items():
        assert hashlib.sha256(content).hexdigest() == digest


def test_the_manifest_of_a_module_is_the_same_in_every_run_whatever_the_times_in_the_zip() -> None:
    def zipped(year: int) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(zipfile.ZipInfo("ansible/a.py", (year, 1, 1, 0, 0, 0)), "pass\n")
        return buffer.getvalue()

    assert zipped(2001) != zipped(2020)
    assert read_zip(zipped(2001)) == read_zip(zipped(2020))


def test_the_same_module_is_unzipped_once() -> None:
    splitter = PayloadSplitter()
    assert splitter.split(text_of("ping")).manifest is splitter.split(text_of("ping")).manifest


def test_secrets_of_newer_cores_travel_as_a_tagged_list() -> None:
    before, call, after = text_of("ping").rpartition(b"_ansiballz_main(\n")
    text = before + call + b"secrets=frozenset({'hidden'}),\n" + after.replace(b"secrets=frozenset(),\n", b"")
    assert PayloadSplitter().split(text).arguments["secrets"] == {"frozenset": ["hidden"]}


@pytest.mark.parametrize("literal", [b"frozenset({'hidden', 'both'})", b"frozenset()"])
def test_a_module_is_given_the_very_secrets_that_core_wrote_into_its_payload(literal: bytes) -> None:
    before, call, after = text_of("ping").rpartition(b"_ansiballz_main(\n")
    text = before + call + b"secrets=" + literal + b",\n" + after.replace(b"secrets=frozenset(),\n", b"")
    payload = PayloadSplitter().split(text)
    header = {"module": payload.module, "arguments": payload.arguments}
    arrived, blobs = frames.unpack_payload(frames.pack_payload(header, [payload.parameters]))
    assert child._module_arguments(arrived, blobs)["secrets"] == eval(literal)


@pytest.mark.parametrize(
    "text",
    [
        b"#!/bin/sh\necho hello\n",
        b"    _ansiballz_main(\nzip_data=1,\n)",
        b"    _ansiballz_main(\nimport os\n)",
        b"    _ansiballz_main(\nzip_data='" + base64.b64encode(b"no zip") + b"',\nextensions={},\nmodule_fqn='a',\n)",
    ],
)
def test_what_is_no_ansiballz_of_a_known_shape_is_left_to_core_with_a_reason(text: bytes) -> None:
    with pytest.raises(NotSplit) as caught:
        PayloadSplitter().split(text)
    assert str(caught.value) in ("not ansiballz", "unknown ansiballz shape")


def test_a_payload_with_a_debugger_or_coverage_extension_is_left_to_core() -> None:
    text = text_of("ping").replace(b"extensions={}", b"extensions={'_coverage': {}}", 1)
    with pytest.raises(NotSplit, match="extensions"):
        PayloadSplitter().split(text)
