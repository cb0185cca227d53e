# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Writes the transcripts of docs/command.md by running the commands.

    python docs/transcripts/record.py

Runs in a temporary directory with two hosts over connection local and a small playbook. What `clean` finds is the cache
of whoever runs it; for one that is new, as root:

    unshare -m sh -c 'mount -t tmpfs -o mode=700 none ~/.cache/ansible_mitogen_svc && python docs/transcripts/record.py'
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PLAYBOOK = """
- name: A small site
  hosts: all
  tasks:
    - name: Its configuration
      ansible.builtin.copy: {content: "port = 80", dest: "/tmp/site-{{ inventory_hostname }}.conf", mode: "0644"}
    - name: Wait for a person
      ansible.builtin.pause: {prompt: Go on}
      when: ask | default(false)
    - name: Ask the service
      ansible.builtin.command: /bin/true
      timeout: 30
      changed_when: false
    - name: Say so
      ansible.builtin.debug: {msg: done}
"""
COMMANDS = {
    "doctor": ["doctor -i hosts.json site.yml"],
    "compare": ["compare --check site.yml -i hosts.json --limit '!router'"],
    "clean": ["clean -i hosts.json --limit web1 --check"],
}


def main() -> int:
    """Write the files; returns the exit status."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    hosts = {"web1": local, "web2": local, "router": {"ansible_connection": "ansible.netcommon.network_cli"}}
    with tempfile.TemporaryDirectory(prefix="transcripts-") as name:
        place = Path(name)
        (place / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
        (place / "site.yml").write_text(PLAYBOOK)
        namespace = place / "collections/ansible_collections/ansible_mitogen"
        namespace.mkdir(parents=True)
        (namespace / "svc").symlink_to(ROOT)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment = {**kept, "ANSIBLE_COLLECTIONS_PATH": str(place / "collections"), "NO_COLOR": "1"}
        environment["PYTHONPATH"] = str(ROOT)
        for title, lines in COMMANDS.items():
            text = "".join(record(line, place, environment) for line in lines)
            (HERE / f"{title}.txt").write_text(text)
    return 0


def record(line: str, place: Path, environment: dict[str, str]) -> str:
    """The command as it is typed, and what it printed."""
    shell = f"{sys.executable} -m ansible_mitogen_svc.command {line}"
    done = subprocess.run(
        shell, shell=True, check=False, cwd=place, env=environment, capture_output=True, text=True, timeout=600
    )
    print(done.stderr, file=sys.stderr)
    text = f"$ ansible-mitogen-svc {line}\n{done.stdout}"
    return text.replace(str(place), "/home/me/site").replace(f"{Path.home()}/", "/home/me/").rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
