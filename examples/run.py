# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Before and after: site.yml on two fresh containers under ansible-core's linear strategy, then under ours.

`make examples` runs this in the environment of the tests. The comparison is that of `ansible-mitogen-svc compare`;
fresh containers for each run stand for its --reset. Exit status 0: both runs succeeded, with the same results.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from rig import debian  # noqa: E402
from rig.errors import RigUnavailable  # noqa: E402
from rig.held_hosts import inventory  # noqa: E402
from rig.hosts import HostPool  # noqa: E402

from ansible_mitogen_svc.command.comparing import report  # noqa: E402
from ansible_mitogen_svc.comparison.recording import (  # noqa: E402
    CORE_STRATEGY,
    OUR_STRATEGY,
    RecordedRun,
    run_recorded,
)


def run_site(strategy: str, pool: HostPool, directory: Path) -> RecordedRun:
    """Run the playbook on two new hosts."""
    hosts = directory / f"{strategy}.json"
    hosts.write_text(json.dumps(inventory(pool, ["web", "db"])))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment = {**kept, "ANSIBLE_PIPELINING": "true", "NO_COLOR": "1", "ANSIBLE_HOME": str(directory / "home")}
    collections = os.environ.get("ANSIBLE_COLLECTIONS_PATH")
    if collections:
        environment["ANSIBLE_COLLECTIONS_PATH"] = collections
    print(f"{strategy} ...", flush=True)
    arguments = ["-i", "inventory.yml", "-i", str(hosts), "site.yml"]
    return run_recorded(arguments, strategy, environment, HERE, timeout=1200)


def main() -> int:
    """Run it twice and compare."""
    try:
        debian.ensure_commands("podman", "runc", "debootstrap", "ssh")
        with HostPool() as pool, tempfile.TemporaryDirectory(prefix="svcx-", dir="/tmp") as name:
            runs = [run_site(strategy, pool, Path(name)) for strategy in (CORE_STRATEGY, OUR_STRATEGY)]
    except RigUnavailable as reason:
        print(f"No containers here: {reason}", file=sys.stderr)
        return 3
    failed = [run for run in runs if run.returncode]
    if failed:
        print(failed[0].output)
        return 1
    return report(runs[:1], runs[1:], shown=None)


if __name__ == "__main__":
    sys.exit(main())
