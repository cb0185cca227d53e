# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The first code that runs on a target; everything else of ours is put into ``sys.modules`` by it.

It is never imported: `services/bootstrap.py` sends its text, followed by the other sources, to a bare Python, which
runs it with ``SECTIONS`` set. Runs before any thread exists, in the process that becomes the agent, or in a Python
that a become command or another interpreter gave and that becomes a zygote.

Theory of operation
1. ``SECTIONS`` is ``[role, this text, name, source, name, source, ..., settings]``, all bytes; role is ``agent`` or
   ``zygote``.
2. The sources are compiled once and kept marshalled in the store of this user, in a file named by the sha256 of all of
   them and by the interpreter; a directory that somebody else could have written is not used.
3. role ``agent``: fork; the child becomes the login zygote on one end of a socket pair, the parent executes mitogen's
   core as module ``mitogen.core`` and runs the agent on it. Forking first means no thread, no lock and no import
   of the agent's is ever in a zygote.
4. role ``zygote``: becomes a zygote on descriptors 0 and 1.
5. What the agent and core's base ``module_utils`` both import is imported before that fork, once for both. Until a
   process is complete its garbage is not collected: everything that is made while modules are imported stays.
"""

import gc
import hashlib
import importlib.machinery
import importlib.util
import marshal
import os
import sys
import types

#: Imported by mitogen's core or the agent, and by ``ansible.module_utils.basic`` of every core since 2.19.
SHARED = (
    "json", "logging", "re", "shutil", "signal", "socket", "struct", "subprocess", "syslog", "traceback", "weakref",
)  # fmt: skip
PACKAGES = ("ansible_mitogen_svc", "ansible_mitogen_svc.wire", "ansible_mitogen_svc.target", "mitogen")


def load_private_place(sources):
    """Run the module that knows whether a directory can be trusted; the only one compiled each time."""
    module = types.ModuleType(PRIVATE_PLACE.decode())
    exec(compile(sources[PRIVATE_PLACE], f"<{module.__name__}>", "exec", dont_inherit=True), module.__dict__)
    sys.modules[module.__name__] = module
    return module


def compiled(sources, store):
    """Marshalled code objects of `sources` ({name: text}), from the directory `store` (or None) when it has them.

    A file there starts with the sha256 of its rest, so that a torn or damaged one is noticed.
    """
    digest = hashlib.sha256()
    for name, text in sources.items():
        digest.update(name + b"\0" + text + b"\0")
    path = None
    if store:
        path = os.path.join(store, f"boot-{digest.hexdigest()[:32]}.{sys.implementation.cache_tag}")
        try:
            with open(path, "rb") as file:
                data = file.read()
            if hashlib.sha256(data[32:]).digest() == data[:32] and data[32:36] == importlib.util.MAGIC_NUMBER:
                os.utime(path)
                return marshal.loads(data[36:])
        except (OSError, ValueError, EOFError, TypeError):
            pass
    codes = {
        name: marshal.dumps(compile(text, f"<{name.decode()}>", "exec", dont_inherit=True))
        for name, text in sources.items()
    }
    if path:
        data = importlib.util.MAGIC_NUMBER + marshal.dumps(codes)
        temporary = f"{path}.{os.getpid()}"
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
            os.rename(temporary, path)
        except OSError:
            pass
    return codes


class Bundle:
    """Finder and loader in one for the modules that came with the boot text.

    It has what importlib asks for and none of its base classes: their module imports twenty others.
    """

    def __init__(self, codes):
        self.codes = codes

    def find_spec(self, name, path=None, target=None):
        if name in PACKAGES:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
        if name.encode() in self.codes:
            return importlib.machinery.ModuleSpec(name, self)  # type: ignore[arg-type]
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        code = self.codes.get(module.__name__.encode())
        if code is not None:
            exec(marshal.loads(code), module.__dict__)


def name_process(name):
    """What ``ps -o comm`` shows; where /proc is missing the name stays python's."""
    try:
        with open("/proc/self/comm", "w") as file:
            file.write(name)
    except OSError:
        pass


def become_zygote(input_fd, output_fd):
    name_process("svc-zygote")
    from ansible_mitogen_svc.target import zygote

    zygote.main(input_fd, output_fd, None)


def fork_zygote(inherited):
    """Start the login zygote; returns (pid, our end of its socket)."""
    import socket

    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    status = 1
    try:
        os.setsid()
        ours.close()
        for descriptor in inherited:
            os.close(descriptor)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        descriptor = theirs.detach()
        become_zygote(descriptor, descriptor)
        status = 0
    finally:
        os._exit(status)


def import_mitogen():
    """Import mitogen's core without the profiler that it has for its own developers, and all that comes with it."""
    absent = {"cProfile": None, "pstats": types.ModuleType("pstats")}
    for name, module in absent.items():
        sys.modules.setdefault(name, module)  # type: ignore[arg-type]
    try:
        importlib.import_module("mitogen.core")
    finally:
        for name, module in absent.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def start_agent(settings, sections):
    """Turn this process into the agent; `settings` is what mitogen's ExternalContext takes. Never returns."""
    config = dict(settings)
    stream = os.dup(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    for name in SHARED:
        importlib.import_module(name)
    pid, socket_ = fork_zygote([stream])
    name_process("svc-agent")
    config.update(in_fd=stream, core_src_fd=None)
    import_mitogen()
    from ansible_mitogen_svc.target import agent

    gc.freeze()
    gc.enable()
    agent.run(config, pid, socket_, sections)
    os._exit(0)


def main(sections):
    gc.disable()
    role = sections[0]
    settings = eval(sections[-1])
    sources = dict(zip(sections[2:-1:2], sections[3:-1:2]))
    # A zygote has no use for mitogen, and a smaller process forks faster.
    if role == b"zygote":
        sources = {name: text for name, text in sources.items() if name not in (b"mitogen.core", AGENT)}
    store = load_private_place(sources).default_root()
    sys.meta_path.insert(0, Bundle(compiled(sources, store)))
    sys.argv[:] = [""]
    if role == b"zygote":
        become_zygote(0, 1)
    else:
        start_agent(settings, sections)


AGENT = b"ansible_mitogen_svc.target.agent"
PRIVATE_PLACE = b"ansible_mitogen_svc.target.private_place"
main(globals()["SECTIONS"])
