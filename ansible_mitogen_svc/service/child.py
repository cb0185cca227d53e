# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The pool of a child, which nobody there constructs by hand.

1. A parent's first ``call()`` to a child sends start_pool() ahead: the child's main thread replaces the stub that
   mitogen keeps on the CALL_SERVICE handle, together with what has arrived there, by a Pool.
2. A parent that sends a plain CALL_SERVICE (``Context.call_service``) makes mitogen start its own pool, which imports
   the service and hands the call to its invoker. Our invokers then move everything to a Pool (take_over_call): the
   handle, the messages still queued, and the services the other pool had activated.
3. mitogen.service is told that our pool is the process's pool, so that it starts no second one.
The handle changes hands in the broker thread, which is also the one that delivers messages: none is lost or doubled.
"""

from __future__ import annotations

import os
import threading
from typing import Any, List, Optional

import mitogen.core
import mitogen.service

from . import open_pools
from .errors import Error
from .pool import Pool
from .service import Service

#: Threads of a child's pool; what mitogen's own has.
CHILD_POOL_SIZE = 2
_lock = threading.Lock()
#: Kept here because a child has nobody else to keep it.
_pool: Optional[Pool] = None


@mitogen.core.takes_router  # type: ignore[untyped-decorator]
def start_pool(router: mitogen.core.Router, size: int = CHILD_POOL_SIZE) -> None:
    """Make sure that this process has a pool. For a parent to call: ``context.call(start_pool, size=8)``."""
    child_pool(router, size=size)


def child_pool(router: mitogen.core.Router, **settings: Any) -> Pool:
    """The pool of this child, constructed on first use; *settings* are Pool's arguments (activator, limits, ...).

    Raises Error when settings other than the size are given for a pool that exists.
    """
    global _pool
    with _lock:
        pool = open_pools.of_router(router)
        if pool is not None:
            if set(settings) - {"size"}:
                raise Error("this process already has a service pool, with settings of its own")
            return pool
        settings.setdefault("size", CHILD_POOL_SIZE)
        _pool = _replace_handler(router, settings)
        return _pool


def take_over_call(service: Service, msg: mitogen.core.Message) -> None:
    """Serve *msg*, which mitogen's own pool was about to hand to an invoker of ours, in our pool."""
    pool = child_pool(service.router)
    try:
        pool.add(service)
    except Error:
        pass  # another call of the same service was faster
    service.router.broker.defer(pool.serve_message, msg)


def _replace_handler(router: mitogen.core.Router, settings: Any) -> Pool:
    """Put a Pool where mitogen's stub or mitogen's pool was."""
    upstream = mitogen.service._pool if mitogen.service._pool_pid == os.getpid() else None

    def swap() -> Pool:
        pool = Pool(router, overwrite=True, **settings)
        if upstream is not None:
            for name, invoker in upstream._invoker_by_name.items():
                if not isinstance(invoker.service, Service):
                    pool.adopt(name, invoker)
        for msg in _queued_messages(upstream):
            pool.serve_message(msg)
        mitogen.service._pool, mitogen.service._pool_pid = pool, os.getpid()
        return pool

    pool: Pool = router.broker.defer_sync(swap)
    if upstream is not None:
        upstream._receiver.handle = None  # it is ours now: stop() must not remove it from the router
        upstream.stop(join=False)
    return pool


def _queued_messages(upstream: Any) -> List[mitogen.core.Message]:
    """What has arrived for the handler that is being replaced, and was not served."""
    receivers = [getattr(mitogen.core.Dispatcher, "_service_recv", None), getattr(upstream, "_receiver", None)]
    messages = []
    for receiver in receivers:
        while receiver is not None:
            try:
                messages.append(receiver.get(block=False, throw_dead=False))
            except (mitogen.core.TimeoutError, mitogen.core.ChannelError):
                break
    return messages
