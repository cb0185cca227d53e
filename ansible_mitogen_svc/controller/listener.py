# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The unix socket on which forked workers reach the Session, and the directory it is in. The listener runs in the
broker thread of the ansible-playbook process.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile

import mitogen
import mitogen.core
import mitogen.parent
import mitogen.unix

#: The socket's name in its directory, and the most bytes of a whole path: sun_path of unix(7), less its end.
NAME = "listener"
LONGEST_PATH = 107


def private_directory() -> str:
    """Make a directory for the socket that only this user can enter: where temporary files go, if its name is short."""
    made = tempfile.mkdtemp(prefix="ansible-mitogen-svc-")
    if len(os.fsencode(os.path.join(made, NAME))) <= LONGEST_PATH:
        return made
    os.rmdir(made)
    return tempfile.mkdtemp(prefix="ansible-mitogen-svc-", dir="/tmp")


class WorkerListener(mitogen.unix.Listener):  # type: ignore[misc]
    """Takes forked workers of this very run, and nobody else.

    The socket is 0600 in a 0700 directory; the peer's user is checked all the same. A worker's stream gets this
    process's authority, and may talk to targets although routing is unidirectional.
    """

    def on_accept_client(self, sock: socket.socket) -> None:
        """Called in the broker thread for each connection."""
        sock.settimeout(5.0)
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _ = struct.unpack("3i", credentials)
        if uid != os.geteuid() or len(sock.recv(4)) != 4:
            sock.close()
            return
        context_id = self._router.id_allocator.allocate()
        sock.sendall(struct.pack(">LLL", context_id, mitogen.context_id, os.getpid()))
        context = mitogen.parent.Context(self._router, context_id)
        stream = mitogen.core.MitogenProtocol.build_stream(
            router=self._router, remote_id=context_id, auth_id=mitogen.context_id
        )
        stream.protocol.is_privileged = True
        stream.name = f"worker.{pid}"
        sock.setblocking(False)
        stream.accept(sock, sock)
        self._router.register(context, stream)
        self._router.route_monitor.notice_stream(stream)
