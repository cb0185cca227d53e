# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The activator: turns the name of a service that is not in the pool into a new service, for callers that may.

Called by a pool thread, under the pool's activation lock: one activation at a time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Optional

import mitogen.core
import mitogen.service

from .errors import InvalidRequest, NotActivated
from .service import Service

if TYPE_CHECKING:
    from .pool import Pool


class Activator:
    """Finds a service by the fully qualified name of its class, with Python's import.

    In a child the import fetches the module from the parent, as all imports there do. Replace it, whole or by a
    subclass, to understand other names or other rules: ``Pool(activator=...)``.
    """

    def is_permitted(self, service_name: str, msg: Optional[mitogen.core.Message]) -> bool:
        """Whether the sender of *msg* may have a service activated: the own process (None) and parents."""
        return msg is None or mitogen.core.has_parent_authority(msg)

    def activate(self, pool: "Pool", service_name: str, msg: Optional[mitogen.core.Message]) -> Any:
        """Make the service *service_name*; the pool adds it under that name.

        Raises NotActivated when the caller may not, InvalidRequest when the name leads to no service.
        """
        if not self.is_permitted(service_name, msg):
            raise NotActivated(f"service {service_name[:200]!r} is not active here, and the caller may not activate it")
        return self.find_class(service_name)(router=pool.router)

    def find_class(self, service_name: str) -> Any:
        """Import the class. Raises InvalidRequest unless the name is a service's class."""
        module_name, _, class_name = service_name.rpartition(".")
        if not module_name or not class_name.isidentifier():
            raise InvalidRequest(f"{service_name[:200]!r} is not the name of a service class")
        try:
            module = importlib.import_module(module_name)
        except ImportError as exc:
            raise InvalidRequest(f"service {service_name[:200]!r} cannot be imported: {exc}") from exc
        cls = getattr(module, class_name, None)
        if not (isinstance(cls, type) and issubclass(cls, (Service, mitogen.service.Service))):
            raise InvalidRequest(f"{service_name[:200]!r} is not a service class")
        return cls
