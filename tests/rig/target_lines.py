# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Which lines of `target/` and `wire/` ran in real children; for `nox -s coverage`, which needs Python 3.12 for it.

Coverage.py cannot measure them itself: what travels to a target is compiled under names such as `<package.module>`, and
its processes end by `os._exit` or a signal. So every Python of the session's environment imports this module while it
starts (a .pth file says so), and appends each line of ours to a file when it first runs, which survives any end. Run as
a program, from where it is installed, it turns that file into coverage.py's data:

    python .../site-packages/target_lines.py ROOT OUTPUT

Each process writes for itself, in whatever thread a line first runs; `sys.monitoring` calls once per line and process.
"""

from __future__ import annotations

import os
import sys

#: Beside the copy that is installed; others than the session's user may write to it, as become users run code, too.
LINES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "target_lines.txt")
PACKAGES = ("ansible_mitogen_svc.target.", "ansible_mitogen_svc.wire.")


def module_of(filename: str) -> str | None:
    """The module that a code object's file name stands for, when it is one of ours."""
    if filename.startswith("<"):
        name = filename.strip("<>")
    else:
        _before, found, rest = filename.rpartition("/ansible_mitogen_svc/")
        name = f"ansible_mitogen_svc.{rest[:-3].replace('/', '.')}" if found else ""
    return name if name.startswith(PACKAGES) else None


def watch() -> None:
    """Note lines from now on, in this process and those forked from it."""
    monitoring = sys.monitoring
    tool = monitoring.OPTIMIZER_ID

    def line(code: object, number: int) -> object:
        name = module_of(code.co_filename)  # type: ignore[attr-defined]
        if name is not None:
            descriptor = os.open(LINES, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            os.write(descriptor, f"{name} {number}\n".encode())
            os.close(descriptor)
        return monitoring.DISABLE

    monitoring.use_tool_id(tool, "target_lines")
    monitoring.register_callback(tool, monitoring.events.LINE, line)
    monitoring.set_events(tool, monitoring.events.LINE)


def convert(root: str, output: str) -> None:
    """Write coverage.py's data file `output` about the sources below `root`."""
    import glob

    from coverage import CoverageData

    lines: dict[str, set[int]] = {}
    with open(LINES) as file:
        for text in file:
            name, number = text.split()
            lines.setdefault(os.path.join(root, *name.split(".")) + ".py", set()).add(int(number))
    for package in PACKAGES:
        # Also those of which no line ran.
        for path in glob.glob(os.path.join(root, *package.split("."), "*.py")):
            lines.setdefault(path, set())
    data = CoverageData(output)
    data.add_lines(lines)
    data.write()


if __name__ == "__main__":
    convert(*sys.argv[1:])
elif sys.version_info >= (3, 12):
    watch()
