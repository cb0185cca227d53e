# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Large files through the FileService, with a real agent on this machine."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import pathlib
import random
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import mitogen.core
import pytest

from ansible_mitogen_svc import service
from ansible_mitogen_svc.controller.session import Session
from ansible_mitogen_svc.controller.target import Target
from ansible_mitogen_svc.services import file as file_service
from ansible_mitogen_svc.services import flow
from ansible_mitogen_svc.statistics import counters
from ansible_mitogen_svc.wire.file_version import full_version_of, version_of
from ansible_mitogen_svc.wire.transfer import PART, EarlySync, PartReader

Connect = Callable[[str], Target]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


def put(session: Session, target: Target, source: pathlib.Path, destination: pathlib.Path, mode: int = 0o644,
        zygote: int = 0) -> int:
    return int(put_known(session, target, source, destination, mode, zygote)["size"])


def put_known(session: Session, target: Target, source: pathlib.Path, destination: pathlib.Path, mode: int = 0o644,
              zygote: int = 0) -> dict[str, Any]:
    return session.move_file(
        "put", context_id=target.context_id, source=str(source), destination=str(destination), mode=mode, zygote=zygote
    )


def fetch(session: Session, target: Target, source: pathlib.Path, destination: pathlib.Path, **more: Any) -> int:
    return int(session.move_file(
        "fetch", context_id=target.context_id, source=str(source), destination=str(destination), **more
    )["size"])


@pytest.fixture
def large(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "large"
    path.write_bytes(random.Random(7).randbytes(2 * flow.MOST + 3 * PART + 17))
    return path


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory on the target."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 4 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(path)], check=True)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_file_of_several_windows_arrives_as_it_was(
    session: Session, connect: Connect, large: pathlib.Path, place: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    target, data = connect("one"), large.read_bytes()
    assert put(session, target, large, place / "there", 0o640) == len(data)
    assert (place / "there").read_bytes() == data
    assert fetch(session, target, place / "there", tmp_path / "back") == len(data)
    assert (tmp_path / "back").read_bytes() == data
    assert os.listdir(place) == ["there"]


@pytest.mark.parametrize("size", [0, 1, PART, flow.ACKNOWLEDGE, flow.ACKNOWLEDGE + 1])
def test_sizes_at_the_edges(
    size: int, session: Session, connect: Connect, place: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "source").write_bytes(random.Random(size).randbytes(size))
    target = connect("one")
    assert put(session, target, tmp_path / "source", place / "there") == size
    assert fetch(session, target, place / "there", tmp_path / "back") == size
    assert (tmp_path / "back").read_bytes() == (tmp_path / "source").read_bytes()


def test_files_of_the_kernel_which_have_no_size_are_fetched(
    session: Session, connect: Connect, tmp_path: pathlib.Path
) -> None:
    fetch(session, connect("one"), pathlib.Path("/proc/version"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == pathlib.Path("/proc/version").read_bytes()


def test_a_new_file_gets_its_mode_less_the_umask_and_a_replaced_one_keeps_owner_mode_and_attributes(
    session: Session, connect: Connect, large: pathlib.Path, place: pathlib.Path
) -> None:
    target = connect("one")
    put(session, target, large, place / "new", 0o777)
    assert stat.S_IMODE((place / "new").stat().st_mode) == 0o777 & ~umask()
    (place / "old").write_text("old")
    (place / "old").chmod(0o604)
    if os.geteuid() == 0:
        os.chown(place / "old", 12345, 54321)
    os.setxattr(place / "old", "user.kept", b"yes")
    (place / "pointer").symlink_to("old")
    put(session, target, large, place / "pointer", 0o777)
    status = (place / "old").stat()
    assert (place / "pointer").is_symlink()
    assert (place / "old").read_bytes() == large.read_bytes()
    assert stat.S_IMODE(status.st_mode) == 0o604
    assert os.getxattr(place / "old", "user.kept") == b"yes"
    if os.geteuid() == 0:
        assert (status.st_uid, status.st_gid) == (12345, 54321)


def umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_what_has_two_names_keeps_both(
    session: Session, connect: Connect, large: pathlib.Path, place: pathlib.Path
) -> None:
    (place / "old").write_text("old")
    os.link(place / "old", place / "other")
    put(session, connect("one"), large, place / "old")
    assert (place / "other").read_bytes() == large.read_bytes()


@pytest.fixture
def mounted(place: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file on which another one is mounted, as containers have it of /etc/hosts."""
    path = place / "mounted"
    path.write_text("below")
    (tmp_path / "above").write_text("above")
    (tmp_path / "above").chmod(0o604)
    done = subprocess.run(["mount", "--bind", str(tmp_path / "above"), str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@AS_ROOT
@pytest.mark.parametrize("direction", ["put", "fetch"])
def test_a_file_that_is_mounted_is_written_in_place(
    direction: str, session: Session, connect: Connect, large: pathlib.Path, mounted: pathlib.Path
) -> None:
    os.truncate(large, large.stat().st_size + (4 << 20))
    before = mounted.stat()
    (put if direction == "put" else fetch)(session, connect("one"), large, mounted)
    now = mounted.stat()
    assert mounted.read_bytes() == large.read_bytes()
    assert (now.st_dev, now.st_ino, now.st_mode) == (before.st_dev, before.st_ino, before.st_mode)
    assert os.listdir(mounted.parent) == ["mounted"]


@AS_ROOT
@pytest.mark.parametrize("direction", ["put", "fetch"])
def test_what_is_known_of_a_file_that_is_mounted_is_of_that_file(
    direction: str, session: Session, connect: Connect, large: pathlib.Path, mounted: pathlib.Path
) -> None:
    if direction == "put":
        known = put_known(session, connect("one"), large, mounted)["known"]
    else:
        known = session.move_file(
            "fetch", context_id=connect("one").context_id, source=str(large), destination=str(mounted))["known"]
    assert known["version"] == version_of(mounted.stat())
    assert known["digests"]["sha1"] == hashlib.sha1(large.read_bytes()).hexdigest()


def test_a_name_of_as_many_bytes_as_a_name_may_have_is_written_to(
    session: Session, connect: Connect, large: pathlib.Path, place: pathlib.Path
) -> None:
    path = place / ("\N{MATHEMATICAL FRAKTUR CAPITAL U}" * 63 + "abc")
    assert len(os.fsencode(path.name)) == 255
    put(session, connect("one"), large, path)
    assert os.listdir(place) == [path.name] and path.read_bytes() == large.read_bytes()


UNLISTED = """
import os, sys, tempfile
sys.path.insert(0, sys.argv[1])
from ansible_mitogen_svc.target.files import Incoming
if os.geteuid() == 0:
    os.setuid(65534)
with tempfile.TemporaryDirectory() as place:
    os.chmod(place, 0o300)
    file = Incoming({'path': os.path.join(place, 'new'), 'mode': 0o600})
    file.do({'op': 'receive'}, [])
    file.do({'op': 'part'}, [b'content'])
    file.do({'op': 'complete', 'size': 7, 'sha256': sys.argv[2]}, [])
    file.discard()
    os.chmod(place, 0o700)
    print(os.listdir(place))
"""


def test_a_directory_that_may_be_written_to_and_not_listed_takes_a_file() -> None:
    root = pathlib.Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", UNLISTED, str(root), hashlib.sha256(b"content").hexdigest()],
        capture_output=True, text=True, timeout=60, cwd="/")  # fmt: skip
    assert (done.stdout, done.stderr) == ("['new']\n", "")


def test_holes_stay_holes_in_both_directions(
    session: Session, connect: Connect, place: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        for offset in (0, 64 << 20, 200 << 20):
            file.seek(offset)
            file.write(os.urandom(100_000))
        file.truncate(300 << 20)
    target = connect("one")
    started = time.monotonic()
    put(session, target, tmp_path / "sparse", place / "there")
    fetch(session, target, place / "there", tmp_path / "back")
    assert time.monotonic() - started < 30
    for path in (place / "there", tmp_path / "back"):
        assert path.stat().st_size == 300 << 20
        assert path.stat().st_blocks * 512 < 8 << 20
    assert subprocess.run(["cmp", tmp_path / "sparse", tmp_path / "back"], timeout=120).returncode == 0


@AS_ROOT
def test_a_disk_that_fills_up_is_named_and_nothing_stays(
    session: Session, connect: Connect, large: pathlib.Path, small_disk: pathlib.Path
) -> None:
    target = connect("one")
    (small_disk / "kept").write_text("old")
    for name in ("new", "kept"):
        with pytest.raises(service.CallFailed, match="No space left on device: .*/disk/"):
            put(session, target, large, small_disk / name)
    until(lambda: os.listdir(small_disk) == ["kept"])
    assert (small_disk / "kept").read_text() == "old"
    large.write_bytes(b"x" * (1 << 20))
    put(session, target, large, small_disk / "new")
    assert (small_disk / "new").read_bytes() == large.read_bytes()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_directory_that_goes_away_during_the_transfer_fails_it(
    session: Session, connect: Connect, place: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    source = tmp_path / "pipe"
    os.mkfifo(source)
    failure: list[BaseException] = []

    def transfer() -> None:
        try:
            put(session, connect("one"), source, place / "new")
        except service.CallFailed as error:
            failure.append(error)

    thread = threading.Thread(target=transfer)
    thread.start()
    with open(source, "wb", buffering=0) as file:
        file.write(b"x" * 1000)
        until(lambda: bool(os.listdir(place)))
        place.rename(tmp_path / "elsewhere")
    thread.join(30)
    assert "No such file or directory" in str(failure[0])
    until(lambda: not (tmp_path / "place").exists())


@pytest.fixture
def growing(large: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file that somebody appends to."""
    stop = threading.Event()

    def append() -> None:
        with open(large, "ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"more")
                time.sleep(0.002)

    thread = threading.Thread(target=append)
    thread.start()
    yield large
    stop.set()
    thread.join()


def test_a_source_that_changes_while_it_is_put_fails_the_transfer(
    session: Session, connect: Connect, growing: pathlib.Path, place: pathlib.Path
) -> None:
    target = connect("one")
    (place / "there").write_text("old")
    with pytest.raises(service.CallFailed, match="was changed while it was copied"):
        put(session, target, growing, place / "there")
    assert (place / "there").read_text() == "old"
    until(lambda: os.listdir(place) == ["there"])


def test_a_log_is_fetched_as_it_was_when_the_transfer_began(
    session: Session, connect: Connect, growing: pathlib.Path, place: pathlib.Path
) -> None:
    size = growing.stat().st_size
    assert fetch(session, connect("one"), growing, place / "here") >= size
    fetched = (place / "here").read_bytes()
    assert growing.read_bytes().startswith(fetched)


def test_a_file_that_loses_its_end_while_it_is_read_has_no_zeros_in_its_place(tmp_path: pathlib.Path) -> None:
    block = 1 << 20
    with open(tmp_path / "log", "wb") as file:
        file.write(b"x" * block)
        file.seek(4 * block)
        file.write(b"x")
    with open(tmp_path / "log", "rb", buffering=0) as source:
        reader = PartReader(source.fileno())
        assert reader.read(block) == (0, b"x" * block)
        os.truncate(tmp_path / "log", block)
        assert reader.read(block) == (0, b"") and reader.ended


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o4755])
def test_a_fetched_file_gets_the_mode_of_the_one_there_where_the_connection_keeps_modes(
    mode: int, session: Session, connect: Connect, large: pathlib.Path, place: pathlib.Path
) -> None:
    large.chmod(mode)
    target = connect("one")
    fetch(session, target, large, place / "kept", keep_mode=True)
    fetch(session, target, large, place / "usual")
    assert stat.S_IMODE((place / "kept").stat().st_mode) == (mode & 0o777 | 0o200) & ~umask()
    assert stat.S_IMODE((place / "usual").stat().st_mode) == 0o666 & ~umask()
    (place / "kept").chmod(0o604)
    (place / "kept").write_text("old")
    fetch(session, target, large, place / "kept", keep_mode=True)
    assert stat.S_IMODE((place / "kept").stat().st_mode) == 0o604


def test_what_lies_where_a_file_is_fetched_to_stays_what_it_is(
    session: Session, connect: Connect, large: pathlib.Path, place: pathlib.Path
) -> None:
    target, data = connect("one"), large.read_bytes()
    for name in ("two", "mine", "attribute"):
        (place / name).write_text("old")
    os.link(place / "two", place / "names")
    os.setxattr(place / "attribute", "user.kept", b"yes")
    (place / "pointer").symlink_to("two")
    if os.geteuid() == 0:
        os.chown(place / "mine", 12345, 54321)
    before = {path.name: path.lstat() for path in place.iterdir()}
    for name in ("mine", "attribute", "pointer"):
        fetch(session, target, large, place / name)
        assert (place / name).read_bytes() == data
    assert (place / "names").read_bytes() == data
    for path in place.iterdir():
        now, then = path.lstat(), before[path.name]
        assert (now.st_mode, now.st_uid, now.st_gid, now.st_nlink) == (
            then.st_mode, then.st_uid, then.st_gid, then.st_nlink)  # fmt: skip
    assert os.getxattr(place / "attribute", "user.kept") == b"yes"


@AS_ROOT
@pytest.mark.parametrize("holes", [False, True], ids=["without holes", "with holes"])
def test_a_device_that_a_file_is_fetched_to_is_written_to(
    holes: bool, session: Session, connect: Connect, large: pathlib.Path, place: pathlib.Path
) -> None:
    if holes:
        os.truncate(large, large.stat().st_size + (1 << 20))
    os.mknod(place / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    fetched = session.move_file(
        "fetch", context_id=connect("one").context_id, source=str(large), destination=str(place / "null")
    )
    assert stat.S_ISCHR((place / "null").lstat().st_mode)
    assert fetched == {"size": large.stat().st_size, "known": {"version": [], "digests": {}}}


def test_a_fetch_that_fails_leaves_what_was_there_and_no_other_file(
    session: Session, connect: Connect, place: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (place / "kept").write_text("old")
    with pytest.raises(service.CallFailed, match="No such file"):
        fetch(session, connect("one"), tmp_path / "missing", place / "kept")
    with pytest.raises(service.CallFailed, match="Is a directory"):
        fetch(session, connect("one"), tmp_path, place / "kept")
    assert (place / "kept").read_text() == "old"
    assert os.listdir(place) == ["kept"]


def agent_pid(target: Target) -> int:
    zygote = target.call(0, {"op": "hello"}, timeout=30).header["pid"]
    return int(pathlib.Path(f"/proc/{zygote}/stat").read_text().rpartition(")")[2].split()[1])


def test_what_a_killed_agent_left_goes_with_the_next_transfer_and_what_another_one_writes_stays(
    session: Session, connect: Connect, large: pathlib.Path, place: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    source = tmp_path / "pipe"
    os.mkfifo(source)
    target = connect("one")
    failures: list[BaseException] = []

    def transfer() -> None:
        try:
            put(session, target, source, place / "new")
        except service.CallFailed as error:
            failures.append(error)

    thread = threading.Thread(target=transfer)
    thread.start()
    with open(source, "wb", buffering=0) as file:
        file.write(b"x" * 1000)
        until(lambda: bool(os.listdir(place)))
        put(session, connect("two"), large, place / "new")
        assert len(os.listdir(place)) == 2, "the other transfer's file is in use"
        os.kill(agent_pid(target), signal.SIGKILL)
        until(lambda: not target.alive)
    thread.join(30)
    assert failures[0].type_name.endswith("TargetLost")  # type: ignore[attr-defined]
    assert len(os.listdir(place)) == 2
    put(session, connect("two"), large, place / "new")
    assert os.listdir(place) == ["new"]


@pytest.mark.parametrize("size", [256 << 20, pytest.param(1 << 30, marks=pytest.mark.long)])
def test_tasks_run_while_a_file_is_under_way(
    size: int, session: Session, connect: Connect, place: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with open(tmp_path / "source", "wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    target = connect("one")
    alone = max(seconds_of_a_ping(target) for _ in range(10))
    waits = []
    done = threading.Event()

    def transfer() -> None:
        put(session, target, tmp_path / "source", place / "there")
        done.set()

    threading.Thread(target=transfer).start()
    while not done.is_set():
        waits.append(seconds_of_a_ping(target))
    assert len(waits) >= 5
    assert max(waits) < max(1.0, 20 * alone), max(waits)


def seconds_of_a_ping(target: Target) -> float:
    started = time.monotonic()
    target.call(target.login_number, {"op": "ping"}, timeout=30)
    return time.monotonic() - started


def test_text_is_compressed_on_a_slow_link_only(
    session: Session, connect: Connect, place: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_text("a line of a log file, like many others\n" * 1_000_000)
    target = connect("one")
    counters.take()
    monkeypatch.setattr(flow, "FAST", 0)
    put(session, target, tmp_path / "source", place / "there")
    assert "bytes_saved" not in counters.report()["transfer"]
    monkeypatch.setattr(flow, "FAST", 1 << 40)
    monkeypatch.setattr(flow.Compression, "_decide", decide_for_compression)
    put(session, target, tmp_path / "source", place / "there")
    assert counters.report()["transfer"]["bytes_saved"] > 10 << 20
    assert (place / "there").read_bytes() == (tmp_path / "source").read_bytes()
    fetch(session, target, place / "there", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "source").read_bytes()


@pytest.mark.parametrize("direction", ["put", "fetch"])
def test_what_does_not_shrink_is_never_compressed_however_slow_the_link(
    direction: str, session: Session, connect: Connect, large: pathlib.Path, place: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(flow, "FAST", 1 << 40)
    monkeypatch.setattr(flow.Compression, "_decide", decide_for_compression)
    asked: list[bool] = []
    packed = file_service.Course._packed

    def noted(self: file_service.Course, header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
        asked.append(self.compression.on)
        return packed(self, header, blobs)

    monkeypatch.setattr(file_service.Course, "_packed", noted)
    (put if direction == "put" else fetch)(session, connect("one"), large, place / "there")
    assert asked and not any(asked)


def decide_for_compression(self: flow.Compression, rate: float) -> None:
    self.on, self._phase = True, ""


@pytest.mark.parametrize("direction", ["put", "fetch"])
def test_four_gibibytes_pass_through_a_quarter_of_one(
    direction: str, session: Session, connect: Connect, place: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        for number in range(64):
            file.seek(number << 26)
            file.write(os.urandom(1 << 20))
        file.truncate(4 << 30)
    target = connect("one")
    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        for pid in (0, agent_pid(target)):
            status = pathlib.Path(f"/proc/{pid or 'self'}/status").read_text()
            size = int(status.partition("VmSize:")[2].split()[0]) * 1024
            resource.prlimit(pid, resource.RLIMIT_AS, (size + (256 << 20), before[1]))
        (put if direction == "put" else fetch)(session, target, tmp_path / "sparse", place / "there")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert (place / "there").stat().st_size == 4 << 30
    assert (place / "there").stat().st_blocks * 512 < 128 << 20


def test_a_transfer_makes_room_in_the_pipes_that_it_passes_through(
    session: Session, connect: Connect, large: pathlib.Path, place: pathlib.Path
) -> None:
    target = connect("one")
    agent = f"/proc/{agent_pid(target)}/fd"
    pipes = [descriptor for descriptor in map(int, os.listdir(agent)) if is_pipe(f"{agent}/{descriptor}")]
    assert not sizes(agent, pipes) & {256 << 10}
    put(session, target, large, place / "there")
    assert 256 << 10 in sizes(agent, pipes)


def is_pipe(path: str) -> bool:
    return os.readlink(path).startswith("pipe:")


def sizes(agent: str, pipes: Sequence[int]) -> set[int]:
    """Of the agent's pipes, in bytes, while they are there."""
    found = set()
    for descriptor in pipes:
        with open(f"{agent}/{descriptor}", "rb" if os.lstat(f"{agent}/{descriptor}").st_mode & 0o400 else "wb") as pipe:
            found.add(fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ))
    return found


@pytest.mark.parametrize(("window", "part"), [(flow.MOST, file_service.LARGEST), (flow.LEAST, PART)])
def test_parts_are_as_large_as_the_link_bears_and_are_copied_once(
        session: Session, connect: Connect, place: pathlib.Path, tmp_path: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch, window: int, part: int) -> None:
    (tmp_path / "source").write_bytes(random.Random(3).randbytes(6 * file_service.LARGEST))
    target = connect("one")
    monkeypatch.setattr(flow.Window, "size", window)
    reads: list[int] = []
    read = file_service.transfer.PartReader.read
    monkeypatch.setattr(
        file_service.transfer.PartReader, "read", lambda self, length: reads.append(length) or read(self, length))
    packed: list[int] = []
    pack = mitogen.core.Message.pack
    monkeypatch.setattr(mitogen.core.Message, "pack", lambda self: packed.append(len(self.data)) or pack(self))
    put(session, target, tmp_path / "source", place / "there")
    assert set(reads) == {part} and len(reads) == 6 * file_service.LARGEST // part + 1
    assert max(packed, default=0) < PART
    assert (place / "there").read_bytes() == (tmp_path / "source").read_bytes()


def test_a_zygote_writes_a_file_as_an_agent_does(
        session: Session, connect: Connect, large: pathlib.Path, place: pathlib.Path) -> None:
    target = connect("one")
    number = target.login_number
    (place / "old").write_bytes(b"old")
    (place / "old").chmod(0o600)
    for name, mode in (("new", 0o640), ("old", 0o600)):
        moved = put_known(session, target, large, place / name, 0o640, number)
        assert moved == {"size": large.stat().st_size, "known": {}}
        assert (place / name).read_bytes() == large.read_bytes()
        assert (place / name).stat().st_mode & 0o777 == mode
    assert sorted(os.listdir(place)) == ["new", "old"]
    with pytest.raises(service.CallFailed, match="No such file or directory: .*/none"):
        put(session, target, large, place / "none" / "x", zygote=number)
    assert target.call(number, {"op": "ping"}, timeout=30).header["jobs"] == 0


def test_what_a_zygote_has_not_finished_is_removed_with_it(
        session: Session, connect: Connect, place: pathlib.Path) -> None:
    target = connect("one")
    number = target.login_number
    begin = {"op": "receive", "transfer": 999, "path": str(place / "new"), "mode": 0o600}
    target.call(number, begin, timeout=30)
    target.call(number, {"op": "part", "transfer": 999}, [b"half"], timeout=30)
    assert len(os.listdir(place)) == 1
    session.disconnect(target)
    deadline = time.monotonic() + 20
    while os.listdir(place):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("direction", ["put", "fetch"])
def test_digests_of_a_file_are_known_when_it_has_come(
        session: Session, connect: Connect, large: pathlib.Path, place: pathlib.Path, direction: str) -> None:
    there = place / "there"
    if direction == "put":
        known = put_known(session, connect("one"), large, there)["known"]
    else:
        known = session.move_file(
            "fetch", context_id=connect("one").context_id, source=str(large), destination=str(there))["known"]
    data = large.read_bytes()
    assert known["digests"] == {name: hashlib.new(name, data).hexdigest() for name in ("sha1", "md5")}
    assert known["version"] == version_of(there.stat())
    there.write_bytes(data)
    assert known["version"] != version_of(there.stat())


@pytest.mark.parametrize("still", [True, False], ids=["as it was", "changed since"])
def test_a_digest_that_is_known_here_is_not_computed_there(
        session: Session, connect: Connect, large: pathlib.Path, place: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch, still: bool) -> None:
    asked: list[Any] = []
    ask = file_service.Course.ask
    monkeypatch.setattr(file_service.Course, "ask", lambda self, header: asked.append(header) or ask(self, header))
    version = full_version_of(large.stat())
    if not still:
        large.touch()
    known = session.move_file(
        "put", context_id=connect("one").context_id, source=str(large), destination=str(place / "there"), mode=0o600,
        zygote=0, sha1="a" * 40, version=version)["known"]
    data = large.read_bytes()
    sha1 = "a" * 40 if still else hashlib.sha1(data).hexdigest()
    assert known["digests"] == {"sha1": sha1, "md5": hashlib.md5(data).hexdigest()}
    assert asked[0]["digests"] == (["md5"] if still else ["sha1", "md5"])


def test_digests_of_a_file_with_holes_are_not_computed(
        session: Session, connect: Connect, tmp_path: pathlib.Path, place: pathlib.Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(4 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    assert put_known(session, connect("one"), tmp_path / "sparse", place / "there")["known"] == {}


def test_a_file_goes_to_its_disk_while_it_comes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    with open(tmp_path / "file", "wb", buffering=0) as file:
        sync = EarlySync(file.fileno())
        file.write(b"some of it")
        deadline = time.monotonic() + 20
        while not synced:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        sync.finish()
    assert synced[0] == len(b"some of it")


def test_a_disk_that_fails_early_fails_the_transfer(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def fail(descriptor: int) -> None:
        failed.set()
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(os, "fdatasync", fail)
    with open(tmp_path / "file", "wb", buffering=0) as file:
        sync = EarlySync(file.fileno())
        assert failed.wait(20)
        with pytest.raises(OSError, match="disk"):
            sync.finish()
