# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A job's own process: waits for a job, runs one module as core's AnsiballZ wrapper would, answers and exits.

Forked ahead of time by a nursery, or for `execute` by the zygote; single-threaded until the module makes threads.

Theory of operation
1. `become_child` cuts the process loose: session, descriptors, signals, name. It happens before the job is known.
2. While there is no job, what most jobs begin and end with is gone through once (rehearsal.py).
3. The job arrives as one message on the child's socket, with descriptors of its payload and, unless the nursery held it
   when it forked, of its bundle.
4. Order of a module run: steps, environment, umask, working directory, the wrapper's own preparations (a working
   directory that exists, RLIMIT_NOFILE, sys.path), then core's `run_module`.
5. Order of the end, as in a Python that finishes its script: print what escaped, wait for threads, atexit, collect
   what only holds itself (a temporary file goes with its object), flush. Then the answer is sent, and only then the
   process goes away, which takes a millisecond nobody has to wait for.
6. The answer is sent by this process alone: a forked grandchild that runs into the same code must not answer, nor
   anything write to a descriptor that has since become something else. When no answer comes, the exit status counts.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import select
import signal
import sys
import threading
import time

from ansible_mitogen_svc.target import batch, bundle, known_files, process, steps
from ansible_mitogen_svc.wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable
    from typing import Any, NoReturn

    from ansible_mitogen_svc.target.loader import Image

LARGE = 1 << 16
"""Bytes of a payload that are not kept in memory twice while its job runs."""


def become_child(null: int, output: int, errors: int, closing: Iterable[int]) -> None:
    """Make a newly forked process independent: standard streams on these descriptors, `closing` closed."""
    process.reset_signals()
    os.setsid()
    for descriptor, standard in ((null, 0), (output, 1), (errors, 2)):
        os.dup2(descriptor, standard)
    for descriptor in closing:
        os.close(descriptor)
    process.set_title('svc-job')


def run_child(sock: socket.socket, image: Image, directory: str | None) -> NoReturn:
    """Wait for a job and run it; ends with the process. `directory` is where jobs start that name no other."""
    wire = process.Wire(sock)
    status = os.fstat(sock.fileno())
    owner = (os.getpid(), sock.fileno(), status.st_dev, status.st_ino)
    if image.rehearsal is not None and not _is_readable(sock):
        image.rehearsal()
    try:
        message, descriptors = wire.receive(block=True)[0]
    except (EOFError, OSError):
        os._exit(0)
    rc = 1
    try:
        header, blobs = frames.unpack_payload(process.read_whole(descriptors[0]))
        _adopt(image, message, descriptors[1:])
        _begin(descriptors[0])
        for descriptor in descriptors:
            os.close(descriptor)
        prepare(header, blobs, directory)
        arguments = _module_arguments(header, blobs)
        known_files.tell(header.get('known_files') or ())
    except steps.StepFailed as failure:
        wire.send(failure.reply)
        os._exit(1)
    except Exception as error:
        wire.send({'error': describe(error), 'steps_done': steps_done})
        os._exit(1)
    rc = _run(image.root, arguments, header.get('items'), blobs)
    _answer(wire, owner, rc)
    os._exit(rc)


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def describe(error: BaseException) -> dict[str, str]:
    """Return the `error` object of a reply."""
    return {'type': type(error).__name__, 'message': str(error) or repr(error)}


def _begin(payload: int) -> None:
    """Let the zygote see that the job may have had effects from here on: it shares the descriptor's offset."""
    if os.lseek(payload, 0, os.SEEK_END) > LARGE:
        os.ftruncate(payload, 0)  # nobody reads it again, and the zygote keeps the file until the job ends


def _adopt(image: Image, message: dict[str, Any], descriptors: list[int]) -> None:
    """Make the image the job's: its files, its code, its place."""
    held = image.held(message['manifest'])
    if held is None:
        held = bundle.open_bundle(message['manifest'], process.read_whole(descriptors[0]))
        if held is None:
            raise ValueError('the bundle of the job was damaged on its way')
    image.adopt(held)
    if message['root'] != image.root:
        image.move(message['root'])


steps_done = 0
"""How many steps of its job this process has done; told with what fails after them."""


def prepare(header: dict[str, Any], blobs: list[bytes], directory: str | None) -> None:
    """Do what a job asks for before it starts. Raises steps.StepFailed, OSError, ValueError."""
    global steps_done
    if header.get('steps'):
        # Blob 0 is the job's own input, and steps count from there.
        steps.run_steps(header['steps'], blobs)
        steps_done = len(header['steps'])
    environment = header.get('environment')
    if environment:
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        tempfile: Any = sys.modules.get('tempfile')
        if tempfile is not None:
            tempfile.tempdir = None  # found out again, from this environment
    time.tzset()  # the time zone may have been changed, here or on the host
    if header.get('umask') is not None:
        os.umask(header['umask'])
    if header.get('cwd'):
        _enter(header['cwd'])
    elif directory is not None:
        try:
            os.chdir(directory)
        except OSError:
            _leave_directory()


def _enter(directory: str) -> None:
    """Go to the directory that the connection starts commands in.

    Core's become command starts in it and may run where its user could not go. We are that user already; when we are
    not there, we go where a process goes that has lost its directory.
    """
    try:
        os.chdir(directory)
    except PermissionError:
        if os.getcwd() != directory:
            _leave_directory()


def _leave_directory() -> None:
    """Go where core's wrapper goes when it has no working directory."""
    try:
        os.chdir(os.path.expanduser('~'))
    except OSError:
        os.chdir('/')


def _module_arguments(header: dict[str, Any], blobs: list[bytes]) -> dict[str, Any]:
    """Do the rest of what core's wrapper does around a module, and return the arguments of core's `run_module`."""
    try:
        os.getcwd()
    except OSError:
        _leave_directory()
    wanted = header.get('rlimit_nofile')
    if wanted:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        if limit != soft:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            except ValueError:
                pass  # macOS reports a hard limit that it does not accept
    if header.get('executable'):
        sys.executable = header['executable']
    arguments = dict(header.get('arguments') or {})
    if 'secrets' in arguments:
        secrets = arguments['secrets']  # 2.22 declares a frozenset; JSON has none, payload.py tags a list
        arguments['secrets'] = frozenset(secrets['frozenset'] if isinstance(secrets, dict) else secrets)
    arguments.update(module_fqn=header['module'], json_params=blobs[0])
    return arguments


def _run(root: str, arguments: dict[str, Any], items: list[dict[str, Any]] | None, blobs: list[bytes]) -> int:
    """Run the module and everything a Python does after its script; return the exit code."""
    sys.path.insert(0, root)
    rc = 1
    try:
        if items:
            rc = batch.run_items(items, blobs, lambda text: _run_module(root, dict(arguments, json_params=text)))
        else:
            rc = _run_module(root, arguments)
    except KeyboardInterrupt:
        _finish(rc)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return _finish(rc) & 0xff


def _run_module(root: str, arguments: dict[str, Any]) -> int:
    """Run the module once; return the exit code. Raises KeyboardInterrupt, after printing it."""
    try:
        from ansible.module_utils._internal._ansiballz import _loader

        _loader.run_module(modlib_path=root, **arguments)
    except SystemExit as error:
        return _exit_code(error.code)
    except BaseException as error:
        sys.excepthook(*sys.exc_info())
        if isinstance(error, KeyboardInterrupt):
            raise
        return 1
    return 0


def _exit_code(code: object) -> int:
    """Return what sys.exit(code) exits with, after printing it when it is a text."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code
    try:
        print(code, file=sys.stderr)
    except Exception:  # noqa: S110  as Python itself: there is nowhere left to say it
        pass
    return 1


def _finish(rc: int) -> int:
    """Wait for threads, run atexit functions, collect, flush; return the exit code, 120 where flushing failed."""
    for finish in (threading._shutdown, atexit._run_exitfuncs, gc.collect):  # type: ignore[attr-defined]
        try:
            finish()
        except BaseException:
            try:
                sys.excepthook(*sys.exc_info())
            except BaseException:  # noqa: S110  likewise
                pass
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            rc = 120
    for flush in (_flush_files, _flush_c_streams):
        try:
            flush()
        except BaseException:  # noqa: S110  there Python is silent as well
            pass
    return rc


STANDARD = 5
"""Open descriptors of a job that has none of its own: three, the socket, and the listing itself."""


def _flush_files() -> None:
    """Let files have their content that somebody still holds: a Python at its end takes them from everybody."""
    try:
        if len(os.listdir('/proc/self/fd')) <= STANDARD:
            return  # as nearly always
    except OSError:
        pass
    # Without what the nursery had, which is frozen: looking at it would cost a copy.
    files = [each for each in gc.get_objects() if isinstance(each, io.IOBase)]
    # What is made of other files first, as the archives of gzip, then texts, then what is below them.
    for kind in (io.IOBase, io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom):
        for file in files:
            made_of_others = not isinstance(file, _PLAIN)
            if made_of_others if kind is io.IOBase else isinstance(file, kind):
                try:
                    file.close() if made_of_others else file.flush()
                except Exception:  # noqa: S110  closed, or its disk is full
                    pass


_PLAIN = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom, io.BufferedReader, io.BufferedRWPair, io.RawIOBase,
          io.BytesIO, io.StringIO)


def _flush_c_streams() -> None:
    """Write what C code has printed; such code was called by ctypes, which imports nothing that is not there yet."""
    find_c_flush()
    if _c_flush is not None and threading.active_count() == 1:
        _c_flush(None)


_c_flush: Any = None


def find_c_flush() -> None:
    """Find C's fflush, where there is ctypes: in a nursery, for all its children."""
    global _c_flush
    ctypes: Any = sys.modules.get('ctypes')
    if _c_flush is None and ctypes is not None:
        _c_flush = ctypes.CDLL(None).fflush


def _answer(wire: process.Wire, owner: tuple[int, int, int, int], rc: int) -> None:
    """Send the exit code, if this is the child itself and its socket is still what it was."""
    pid, descriptor, device, inode = owner
    if os.getpid() != pid:
        return
    try:
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) == (device, inode):
            wire.send({'rc': rc})
    except OSError:
        pass
