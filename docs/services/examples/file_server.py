# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A file server: the master offers files to a child, and the child downloads them in a loop.

    python file_server.py local DIRECTORY FILE...
    python file_server.py ssh:HOST DIRECTORY FILE...

puts the named files of this machine into DIRECTORY of a local child, or of HOST. The child gets what was offered to
it and nothing else: the policy RegisteredContexts asks the service's registrations for each call. `FileServer` runs in
threads of the master's pool; `download` runs in the child, where mitogen imports this file from the master.
"""

from __future__ import annotations

import hashlib
import os
import sys

import mitogen.core

from ansible_mitogen_svc.service import Pool, RegisteredContexts, Service, arg_spec, expose

CHUNK = 128 * 1024


class FileServer(Service):
    """Serves offered files in chunks."""

    def offer(self, path, context):
        """Let *context* have the file *path*. Called in the master; not exposed."""
        self.registrations.register(path, [context])

    @expose(policy=RegisteredContexts("path"))
    @arg_spec({"path": str})
    def describe(self, path):
        """The size in bytes and the sha256 of an offered file."""
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            for chunk in iter(lambda: file.read(CHUNK), b""):
                digest.update(chunk)
            return {"size": file.tell(), "sha256": digest.hexdigest()}

    @expose(policy=RegisteredContexts("path"))
    @arg_spec({"path": str, "offset": int})
    def read(self, path, offset):
        """At most CHUNK bytes of an offered file, beginning at *offset*."""
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(CHUNK)


@mitogen.core.takes_router
def download(service, paths, directory, router):
    """In the child: fetch every file of *paths* from the master into *directory*; returns the sizes in bytes.

    Raises ValueError for a file that changed on its way, and mitogen's CallError for one that was not offered.
    """
    master = mitogen.core.Context(router, 0)
    sizes = []
    for path in paths:
        expected = master.call_service(service, "describe", path=path)
        target = os.path.join(directory, os.path.basename(path))
        digest = hashlib.sha256()
        with open(target + ".part", "wb") as file:
            while file.tell() < expected["size"]:
                chunk = master.call_service(service, "read", path=path, offset=file.tell())
                if not chunk:
                    break
                file.write(chunk)
                digest.update(chunk)
            sizes.append(file.tell())
        if digest.hexdigest() != expected["sha256"]:
            os.unlink(target + ".part")
            raise ValueError(f"{path} changed while it was downloaded")
        os.rename(target + ".part", target)
    return sizes


def serve_and_download(router, child, paths, directory):
    """In the master: a pool with a file server, and one child that downloads *paths* into its *directory*."""
    with Pool(router, [FileServer(router)], size=2) as pool:
        server = pool.get_service(FileServer)
        for path in paths:
            server.offer(path, child)
        return child.call(download, FileServer.name(), paths, directory)


def main(arguments):
    """Connect to the child that the command line names, and have it download the files."""
    import mitogen.master

    where, directory, *paths = arguments
    broker = mitogen.master.Broker()
    router = mitogen.master.Router(broker)
    try:
        if where == "local":
            child = router.local(python_path=sys.executable)
        else:
            child = router.ssh(hostname=where.partition(":")[2])
        paths = [os.path.abspath(path) for path in paths]
        for path, size in zip(paths, serve_and_download(router, child, paths, directory), strict=True):
            print(f"{size:10d}  {path}")
    finally:
        broker.shutdown()
        broker.join()


if __name__ == "__main__":
    main(sys.argv[1:])
