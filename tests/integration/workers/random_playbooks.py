# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Writes random playbooks, each with the roles, variables and files it needs: the same ones for the same seed.

What a playbook can hold is said by the grammar in random_playbooks.yml. Most tasks are sensible; some name what does
not exist, have the wrong type, or do not template: their errors are results like others. Keywords are mixed in with
any task, and tasks are put into blocks, roles, included files and handlers. So are some of core's settings and, for
single hosts, variables of connections. Runs in pytest's process.
"""

from __future__ import annotations

import io
import pathlib
import random
import re
import tarfile
from dataclasses import dataclass
from typing import Any

import yaml

GRAMMAR: dict[str, list[Any]] = yaml.safe_load(pathlib.Path(__file__).with_suffix(".yml").read_text())
_PLACE = re.compile(f"<({'|'.join(GRAMMAR)})>")
TEMPLATE = "{% if n is odd %}\n  ünï {{ mine }}\n{% endif %}\n{{ n }} {{ s0 | default('no') }} {{ ansible_managed }}\n"
#: What the playbook finds beside it.
FILES = {
    "files/plain.txt": "plain\n",
    "files/odd name ü.txt": "ünï\r\n\ttext without end of line",
    "files/empty.txt": "",
    "files/folder/first": "1\n",
    "files/folder/deeper/second ü": "2",
    "files/say.sh": '#!/bin/sh\necho "said $1"; echo err >&2; exit $2\n',
    "files/say.py": "import sys\nprint(sys.argv[1:])\n",
    "files/bytes.bin": "\0\1\x7f" * 50,
    "templates/some.j2": TEMPLATE,
    "templates/broken.j2": "{{ n }} {% if %}\n",
    "vars/more.yml": 'of_file: {a: "{{ n }}", b: [ü, 2]}\ns1: of a file\n',
    "vars/list.json": "[1, 2]",
    "broken.yml": "- debug: {msg: [}\n",
    "group_vars/many.yml": 'of_group: ["{{ n }}", ü]\nmine: "{{ inventory_hostname }} of the group"\n',
    "group_vars/all.yml": 'r0: {rc: 0, stdout: before}\nr1: {results: []}\nr2: "{{ r0 }}"\ns0: [n]\ns1: {}\n',
    "group_vars/odd.yml": "of_group: odd ones\n",
    "host_vars/h02.yml": 'of_host: "{{ of_group | length }}"\n',
}
#: What each host has below its base.
ON_HOSTS = {"there": "line 1\nline 2\nlast without end", "folder/inner": "inner ü\n"}


@dataclass(frozen=True)
class Written:
    """A playbook on disk, and the arguments and settings to run it with."""

    playbook: pathlib.Path
    arguments: list[str]
    environment: dict[str, str]


class Writer:
    """Everything random about one playbook comes from `seed`."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._tasks = 0

    def fill(self, value: Any) -> Any:
        """`value` with something for each place in it."""
        if isinstance(value, dict):
            return {self.fill(key): self.fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if not isinstance(value, str):
            return value
        if whole := _PLACE.fullmatch(value):
            return self.one(whole[1])
        return _PLACE.sub(lambda place: str(self.one(place[1])), value)

    def one(self, name: str) -> Any:
        """One of the alternatives called `name`."""
        return self.fill(self.random.choice(GRAMMAR[name]))

    def keywords(self, name: str, probability: float) -> dict[str, Any]:
        """Some keywords, which do not exclude each other."""
        found: dict[str, Any] = {}
        for alternatives in GRAMMAR[name]:
            if self.random.random() < probability:
                found.update(self.fill(self.random.choice(alternatives)))
        return found

    def task(self, includes: bool = True) -> dict[str, Any]:
        """A task of any kind but a block. `includes`: it may include others."""
        while True:
            action = self.one("action")
            if includes or not any(key.startswith("include_") for key in action):
                break
        self._tasks += 1
        named = {"name": f"t{self._tasks} {self.one('text') if self.random.random() < 0.2 else ''}"}
        if any(key in action for key in ("meta", "include_tasks", "include_role")):
            keywords = {"when": self.one("condition")} if self.random.random() < 0.2 else {}
        else:
            keywords = {"ignore_errors": True} if self.random.random() < 0.3 else {}
            keywords.update(self.keywords("keyword", 0.15))
        return {**named, **keywords, **action}

    def tasks(self, number: int, includes: bool = True, depth: int = 0) -> list[dict[str, Any]]:
        """Tasks, some of them in blocks."""
        found = []
        for _ in range(number):
            if depth < 2 and self.random.random() < 0.15:
                found.append(self.block(includes, depth + 1))
            else:
                found.append(task := self.task(includes))
                if task.get("poll") == 0:
                    found.append(self._awaited())
        return found

    def block(self, includes: bool, depth: int) -> dict[str, Any]:
        """A block, mostly with what rescues it."""
        block: dict[str, Any] = {"block": self.tasks(2, includes, depth), **self.keywords("block_keyword", 0.1)}
        if self.random.random() < 0.7:
            seen = {"debug": {"msg": "{{ ansible_failed_task.name }} {{ ansible_failed_result.msg | default('') }}"}}
            block["rescue"] = [seen, *self.tasks(1, includes, depth)]
        if self.random.random() < 0.5:
            block["always"] = self.tasks(1, includes, depth)
        return block

    @staticmethod
    def _awaited() -> dict[str, Any]:
        awaited = {"until": "looked is finished", "retries": 50, "delay": 0.1, "register": "looked"}
        status = {"jid": "{{ job.ansible_job_id }}"}
        return {"name": "awaited (by the clock)", "async_status": status, **awaited, "ignore_errors": True}

    def play(self, tasks: int) -> dict[str, Any]:
        """One play on all hosts."""
        play: dict[str, Any] = {"hosts": "many", "gather_facts": False, "ignore_errors": self.random.random() < 0.8}
        play.update(self.keywords("play_keyword", 0.12))
        play["vars"] = {"of_play": self.one("value"), "base": "{{ scratch }}/{{ inventory_hostname }}"}
        if self.random.random() < 0.2:
            play["pre_tasks"] = self.tasks(1)
        play["tasks"] = self.tasks(tasks)
        if self.random.random() < 0.3:
            imported = {"import_role": {"name": "one"}} if self.random.random() < 0.5 else {"import_tasks": "inner.yml"}
            play["tasks"].append({**imported, **self.keywords("block_keyword", 0.1)})
        play["handlers"] = self.fill(GRAMMAR["handlers"])
        return play

    def some(self, name: str, limit: int) -> dict[str, Any]:
        """Fewer than `limit` of the alternatives called `name`, in one."""
        found: dict[str, Any] = {}
        for _ in range(self.random.randrange(limit)):
            found.update(self.one(name))
        return found

    def write(self, directory: pathlib.Path, plays: int, tasks: int) -> Written:
        """Write the playbook and all it needs into `directory`."""
        files: dict[str, Any] = {"playbook.yml": [self.play(tasks) for _ in range(plays)]}
        for name in ("inner.yml", "other.yml"):
            files[name] = self.tasks(2, includes=False)
        for role in ("one", "two"):
            place = f"roles/{role}"
            files[f"{place}/tasks/main.yml"] = self.tasks(2, includes=False)
            files[f"{place}/tasks/other.yml"] = self.tasks(1, includes=False)
            files[f"{place}/handlers/main.yml"] = [{"name": "of role", "debug": {"msg": self.one("value")}}]
            files[f"{place}/defaults/main.yml"] = {"of_role": self.one("value"), "mine": "of defaults"}
            files[f"{place}/vars/main.yml"] = {"s2": [self.one("value")]}
        files["roles/two/meta/main.yml"] = {"dependencies": [self.fill({"role": "one", "when": "<condition>"})]}
        for name, content in {**FILES, **files}.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not isinstance(content, str):
                content = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10000)
            path.write_text(content, newline="")
        with tarfile.open(directory / "files/some.tar", "w") as archive:
            for name in ("packed", "packed ü"):
                member = tarfile.TarInfo(name)
                member.size = 5
                archive.addfile(member, io.BytesIO(b"12345"))
        written = Written(directory / "playbook.yml", self.one("arguments"), self.some("setting", 5))
        for host in ("h01", "h02"):
            if variables := self.some("of_connection", 3):
                with (directory / f"host_vars/{host}.yml").open("a") as file:
                    yaml.safe_dump(variables, file, allow_unicode=True, width=10000)
        return written


def lay_out(scratch: pathlib.Path, hosts: int) -> None:
    """What hosts have before a run; anybody may change it."""
    for number in range(1, hosts + 1):
        base = scratch / f"h{number:02}"
        for name, content in ON_HOSTS.items():
            path = base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            path.chmod(0o666)
        (base / "link").symlink_to("there")
        for place in (base, base / "folder"):
            place.chmod(0o777)


def left_behind(scratch: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """Kind and mode, owners and content of all files below `scratch`."""
    found = {}
    for path in sorted(scratch.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes().decode("utf-8", "surrogateescape")
        found[str(path.relative_to(scratch))] = (oct(status.st_mode), status.st_uid, status.st_gid, content)
    return found
