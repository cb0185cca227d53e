# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Which state of core's own a task can leave behind in ansible-playbook, where core would end it with a process.

Everything that tasks in the process change has a line in `HARMLESS`, or is put back. A core with something new is
seen here before a user meets what one task tells the next by it.
"""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest

from tests.integration.workers.conftest import OURS, Lab, where_workers_are_chosen

pytestmark = where_workers_are_chosen

#: A regular expression of names -> why it does not matter that they stay.
HARMLESS = {
    r"ansible\.plugins\.loader\..*": "which files and classes plugins are: the same for each task",
    r"ansible\.plugins(\.loader)?\.(MODULE_CACHE|PLUGIN_PATH_CACHE|PATH_CACHE)": "likewise",
    r"ansible\.(config|_internal\._config)\.": "options of plugins that were loaded",
    r"ansible\.plugins\.\w+\..*\.(_load_name|_redirected_names|ansible_aliases|ansible_name)": "names of a plugin",
    r"ansible\.utils\.display\.Display object\.(_errors|_warns|_deprecations)": "core's worker tells the parent, too",
    r"ansible\.module_utils\._internal\._secrets\.SecretMasker object": "core's worker tells the parent, too",
    r"ansible\.utils\.collection_loader\..*\._redirected_package_map": "names of packages that were imported",
    r"ansible\.utils\.vars\.cur_id": "makes names unique",
    r"ansible\._internal\._templating\._lazy_containers\._KNOWN_TYPES": "types that were met",
    r"ansible\._internal\._templating\._jinja_bits\.\w+\._lexer_cache": "jinja2's, by delimiters",
    r"ansible\.module_utils\._internal\._json\._profiles\._string_encoding_check_enabled": "read once",
    r"ansible\.plugins\.filter\.urlsplit\.urlsplit": "urllib's cache, by its argument",
}

KEEPS = """
from ansible.plugins.lookup import LookupBase

kept = []


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **keywords):
        kept.append(1)
        return [len(kept)]
"""


def changes(lab: Lab, play: pathlib.Path | str, ends: int = 0, **variables: Any) -> dict[str, Any]:
    """What tasks changed that ran here: names, with the first tasks that did it."""
    report = lab.directory / "core-state.json"
    wanted = {**lab.wants_of_mixed(OURS), "CORE_STATE": str(report)}
    wanted["ANSIBLE_CALLBACKS_ENABLED"] = "event_stream,core_state"
    run = lab.run(play, OURS + "linear", hosts=2, forks=1, timeout=400, variables=variables, **wanted)
    assert run.returncode == ends and report.exists(), run.output[-3000:]
    found = json.loads(report.read_text())
    here = [sum(run.tasks.get(kind, {}).values()) for kind in ("inline", "thread")]
    assert found["tasks"] >= sum(here) > 0  # more, when one began here and was given to a process
    changed: dict[str, Any] = found["changed"]
    return changed


def unexplained(changed: dict[str, Any]) -> dict[str, Any]:
    """Those without a line in `HARMLESS`."""
    return {name: tasks for name, tasks in changed.items() if not any(re.match(each, name) for each in HARMLESS)}


def test_tasks_leave_nothing_of_cores_behind_that_others_could_notice(every_core: Lab) -> None:
    every_core.write("a,b\n1,2\n", "of the play/values.csv")
    every_core.write("[s]\nk=v\n", "of the play/values.ini")
    every_core.write("[[ n ]]\n", "of the play/words.j2")
    every_core.write("#!/bin/sh\necho script\n", "of the play/one.sh")
    every_core.write("included: 1\n", "of the play/variables/two.yml")
    assert not unexplained(changes(every_core, "changes_nothing.yml", files=str(every_core.directory / "of the play")))


@pytest.mark.long
def test_nor_do_those_of_the_playbook_that_mixes_everything(every_core: Lab) -> None:
    assert not unexplained(changes(every_core, "mixed.yml", ends=2))


def test_what_stays_is_noticed(lab: Lab) -> None:
    lab.write(KEEPS, "lookup_plugins/keeps.py")
    play = lab.write("- {hosts: many, gather_facts: false, tasks: [{debug: {msg: '{{ lookup(\"keeps\") }}'}}]}\n")
    assert list(unexplained(changes(lab, play))) == ["ansible.plugins.lookup.keeps.kept"]
