# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What mitogen's router does for its children by itself, and ours does not for targets.

Used once per router, by the Session and by the session of a forked worker; the handlers run in the broker thread.

A target has no children, imports nothing of ours and gets no numbers of contexts. So it may neither ask for modules,
resources or numbers, nor say where contexts are to be found (it could have what is meant for another host, or end that
one's connection), nor log in a name that it chooses (what is not below ``mitogen`` goes to the terminal).
"""

from __future__ import annotations

import logging

import mitogen.core
import mitogen.parent

#: What a router of mitogen's own handles (mitogen/master.py, mitogen/parent.py, 0.3.54), beside FORWARD_LOG.
REFUSED = (
    mitogen.core.GET_MODULE,
    mitogen.core.GET_RESOURCE,
    mitogen.core.ALLOCATE_ID,
    mitogen.core.ADD_ROUTE,
    mitogen.core.DEL_ROUTE,
    mitogen.core.DETACHING,
)
#: Characters of a target's log message that are kept.
LOG_KEPT = 2000

_logger = logging.getLogger("mitogen.target")


def close_router(router: mitogen.parent.Router, *, follows_parent: bool = False) -> None:
    """Have a router refuse what targets have no business with.

    :param follows_parent: it has a parent, which says what has ended; mitogen takes that from the parent alone.
    """
    for handle in REFUSED:
        if not (follows_parent and handle == mitogen.core.DEL_ROUTE):
            router.add_handler(_refuse, handle=handle, overwrite=True)
    router.add_handler(_log, handle=mitogen.core.FORWARD_LOG, overwrite=True)


def _refuse(message: mitogen.core.Message) -> None:
    if not message.is_dead and message.reply_to:
        message.reply(mitogen.core.Message.dead("refused"))


def _log(message: mitogen.core.Message) -> None:
    """``name\\0level\\0text``, as mitogen's LogHandler sends it; whoever it says it is, it is a target."""
    if message.is_dead:
        return
    text = bytes(message.data[: 4 * LOG_KEPT]).decode("utf-8", "replace").split("\0", 2)[-1][:LOG_KEPT]
    printable = "".join(character if character.isprintable() else " " for character in text)
    _logger.log(logging.WARNING, "context %d: %s", message.src_id, printable)
