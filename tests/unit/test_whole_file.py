# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What is written where a user names a file for a report."""

from __future__ import annotations

import errno
import os
import pathlib
import select
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable

import pytest

from ansible_mitogen_svc.statistics import counters
from ansible_mitogen_svc.timeline.files import write_report, write_trace
from ansible_mitogen_svc.timeline.record import as_plain
from ansible_mitogen_svc.whole_file import write_whole


@pytest.mark.parametrize("directory", [None, "/dev/shm"])
def test_a_file_is_replaced_by_one_that_only_its_owner_reads(directory: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as found:
        place = pathlib.Path(found, "report")
        place.write_text("before, and longer than what comes")
        write_whole(str(place), "after")
        assert place.read_text() == "after" and place.stat().st_mode & 0o777 == 0o600
        assert os.listdir(found) == ["report"]


def test_a_link_is_replaced_and_what_it_leads_to_is_not(tmp_path: pathlib.Path) -> None:
    (tmp_path / "theirs").write_text("kept")
    (tmp_path / "link").symlink_to("theirs")
    write_whole(str(tmp_path / "link"), "text")
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "theirs").read_text() == "kept"


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: write_whole(path, "text"), "text"),
        (counters.write, '"module_runs"'),
        (lambda path: write_report(path, as_plain([], "play.yml", 0.0, {})), "<html"),
        (lambda path: write_trace(path, []), '"traceEvents"'),
    ],
)
def test_a_pipe_is_written_to_and_stays_one(tmp_path: pathlib.Path, write: Callable[[str], None], words: str) -> None:
    place, read = tmp_path / "pipe", []
    os.mkfifo(place)
    opened = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(opened, True)
    writer = threading.Thread(target=lambda: write(str(place)), daemon=True)  # more than a pipe holds
    writer.start()
    with open(opened, encoding="utf-8") as file:
        select.select([file], [], [], 30)
        read.append(file.read())
    writer.join(10)
    assert words in read[0] and stat.S_ISFIFO(place.lstat().st_mode)


def test_a_pipe_that_nobody_reads_keeps_no_run_from_ending(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError) as refused:
        write_whole(str(tmp_path / "pipe"), "text")
    assert refused.value.errno == errno.ENXIO and refused.value.filename == str(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a pipe of another user: needs root")
def test_a_pipe_of_another_user_gets_nothing(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "pipe"
    os.mkfifo(place)
    os.chown(place, 65534, -1)
    opened = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(PermissionError, match="another user"):
        write_whole(str(place), "text")
    assert os.read(opened, 10) == b""
    os.close(opened)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a device: needs root")
def test_a_device_is_written_to_and_stays_one(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "null"
    try:
        os.mknod(place, stat.S_IFCHR | 0o666, os.stat("/dev/null").st_rdev)
    except PermissionError:
        pytest.skip("this container makes no devices")
    write_whole(str(place), "text")
    assert stat.S_ISCHR(place.lstat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_standard_output_is_added_to(tmp_path: pathlib.Path, name: str) -> None:
    # Not as root, who would replace what the name stands for: for the whole machine, were this to fail.
    code = (
        "import os, sys; from ansible_mitogen_svc.whole_file import write_whole; print('said'); "
        f"os.geteuid() or os.setuid(65534); write_whole({name!r}, 'report'); print(' and more')"
    )
    with open(tmp_path / "log", "w") as log:
        os.chmod(log.fileno(), 0o666)
        os.chmod(tmp_path, 0o755)
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True, timeout=60)
    assert (tmp_path / "log").read_text() == "said\nreport and more\n"


def test_what_cannot_be_written_is_told_of_by_the_name_that_was_given(tmp_path: pathlib.Path) -> None:
    for place in (tmp_path, tmp_path / "absent/report"):
        with pytest.raises(OSError) as refused:
            write_whole(str(place), "text")
        assert refused.value.filename == str(place)
    assert os.listdir(tmp_path) == []
