# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A service framework over mitogen: classes whose exposed methods other processes call.

The public names are those below; docs/services/ has a guide. Wire-compatible with ``mitogen.service``. Runs in the
controller and, imported from there, in mitogen children (Python 3.8 and later).
"""

from __future__ import annotations

from .activator import Activator
from .calls import PendingCall, call, call_async
from .child import child_pool, start_pool
from .declare import arg_spec, deadline, expose, no_reply, not_deduplicated
from .deduplicate import DeduplicatingInvoker
from .encoding import Raw
from .errors import (
    CallFailed,
    ConnectionLost,
    DeadlineExceeded,
    Error,
    InvalidRequest,
    NotActivated,
    Overloaded,
    ShuttingDown,
    Unauthorized,
)
from .invoker import Invoker, SerializedInvoker
from .pending import Limits
from .policy import AllowAny, AllowParents, Policy, RegisteredContexts, Registrations
from .pool import Pool
from .service import Service, ServiceEvent, ServiceSelect
from .statistics import CacheStatistics, MethodStatistics, Percentiles, PoolStatistics, ServiceStatistics

__all__ = [
    "Activator", "AllowAny", "AllowParents", "CacheStatistics", "CallFailed", "ConnectionLost", "DeadlineExceeded",
    "DeduplicatingInvoker", "Error", "InvalidRequest", "Invoker", "Limits", "MethodStatistics", "NotActivated",
    "Overloaded", "PendingCall", "Percentiles", "Policy", "Pool", "PoolStatistics", "Raw", "RegisteredContexts",
    "Registrations", "SerializedInvoker", "Service", "ServiceEvent", "ServiceSelect", "ServiceStatistics",
    "ShuttingDown", "Unauthorized", "arg_spec", "call", "call_async", "child_pool", "deadline", "expose", "no_reply",
    "not_deduplicated", "start_pool",
]
