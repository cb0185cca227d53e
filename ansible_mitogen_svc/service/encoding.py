# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Requests and replies as bytes: the message format of mitogen's CALL_SERVICE handle, and two additions to it.

Called by the broker thread (service_name_of), by pool threads (decode_request, encode_*) and by whoever makes calls.

1. A request is the pickled tuple (service name, method name, Kwargs), as ``mitogen.core.Context.call_service``
   sends it. A second pickled object may follow, {"deadline": seconds}; mitogen's own pool reads only the first.
2. A request may also be one JSON object {"service", "method", "arguments", "deadline"} in a message of encoding
   ENC_BIN: for callers that have no pickle, and for targets whose bytes nobody wants to unpickle.
3. A reply is the pickled value; or the bytes themselves (ENC_BIN) when the method returned Raw.
4. An error is a pickled mitogen CallError (a text), followed by {"type", "message", "traceback"}.
Unpickling admits the six constructors of mitogen's whitelist and nothing else, and changes nothing in the router.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
from typing import Any, Dict, NamedTuple, Optional, Tuple

import mitogen.core

from .errors import CallFailed, ConnectionLost, InvalidRequest, failure_from_names

#: CallError refuses a longer text when it is unpickled, which would hide the error from the caller.
ERROR_TEXT_LIMIT = mitogen.core.CallError.MSG_MAX_LEN
_TEXT_HEAD = b"\x80\x02X"  # protocol 2, then a text with a 32 bit length: how every pickled request begins
_JSON_HEAD = re.compile(rb'\{\s*"service"\s*:\s*"([\x20\x21\x23-\x5b\x5d-\x7e]{1,500})"')
_FRAME_MARK = '  File "'


class Raw(bytes):
    """Bytes a method returns to have them sent as they are, unpickled, in a message of encoding ENC_BIN.

    Saves copying and pickling for large results. The caller reads them with this package's ``call`` or with
    ``Message.decode()``; ``mitogen.core.Context.call_service`` cannot (it unpickles whatever arrives).
    """


class Encoded(NamedTuple):
    """A value ready to be put into a message."""

    enc: int
    data: bytes


class Call(NamedTuple):
    """A decoded request; *deadline* is the seconds the caller is going to wait, None for ever."""

    service: str
    method: str
    kwargs: Dict[str, Any]
    deadline: Optional[float]


def encode_request(service: str, method: str, kwargs: Dict[str, Any], deadline: Optional[float] = None) -> Encoded:
    """Encode a call. Raises pickle.PicklingError or TypeError for arguments that cannot be pickled."""
    data = pickle.dumps((service, method, mitogen.core.Kwargs(kwargs)), 2)
    if deadline is not None:
        data += pickle.dumps({"deadline": float(deadline)}, 2)
    return Encoded(mitogen.core.Message.ENC_PKL, data)


def service_name_of(message: mitogen.core.Message) -> Optional[str]:
    """The service a request names, without decoding the rest; None when it does not begin as mitogen's pickles do.

    Cheap enough for the broker thread, which uses it to keep the calls of a serialized service in arrival order.
    """
    data = message.data
    if message.enc == mitogen.core.Message.ENC_BIN:
        match = _JSON_HEAD.match(data)
        return match.group(1).decode("ascii") if match else None
    # mitogen pickles the tuple's first element first: nothing precedes the text but the protocol mark
    if data[:3] != _TEXT_HEAD or len(data) < 7:
        return None
    (length,) = struct.unpack_from("<L", data, 3)
    if length > 500 or len(data) < 7 + length:
        return None
    try:
        return str(data[7:7 + length], "utf-8")
    except UnicodeDecodeError:
        return None


def decode_request(message: mitogen.core.Message) -> Call:
    """Decode and check the form of a request. Raises InvalidRequest for anything that is not one."""
    try:
        if message.enc == mitogen.core.Message.ENC_BIN:
            first, options = _json_request(message.data)
        else:
            first, options = _unpickle(message)
    except Exception as exc:  # what an unpickler raises for garbage is not limited to any list of types
        raise InvalidRequest(f"not a service call: the message cannot be decoded ({type(exc).__name__})") from None
    if not (isinstance(first, tuple) and len(first) == 3):
        raise InvalidRequest("not a service call: expected (service, method, arguments)")
    service, method, kwargs = first
    if not (isinstance(service, str) and isinstance(method, str) and isinstance(kwargs, dict)):
        raise InvalidRequest("not a service call: expected two texts and a mapping")
    for name in kwargs:
        if not isinstance(name, str):
            raise InvalidRequest("not a service call: argument names must be text")
    deadline = options.get("deadline") if isinstance(options, dict) else None
    if deadline is not None and not (isinstance(deadline, (int, float)) and 0 < deadline < 1e9):
        raise InvalidRequest("the deadline must be a positive number of seconds")
    return Call(service, method, dict(kwargs), deadline)


def encode_value(value: Any) -> Encoded:
    """Encode what a method returned. Raises whatever pickling the value raises."""
    if isinstance(value, Raw):
        return Encoded(mitogen.core.Message.ENC_BIN, value)
    if isinstance(value, mitogen.core.Message):
        return Encoded(value.enc, value.data)
    if type(value) is not bytes:
        return Encoded(mitogen.core.Message.ENC_PKL, pickle.dumps(value, 2))
    buffer = io.BytesIO()  # mitogen has a short form for bytes, which protocol 2 has not
    mitogen.core.Pickler(buffer, 2).dump(value)
    return Encoded(mitogen.core.Message.ENC_PKL, buffer.getvalue())


def encode_failure(failure: CallFailed) -> Encoded:
    """Encode an error: a CallError any mitogen can read, then its parts for callers of this package."""
    message = failure.message[:ERROR_TEXT_LIMIT]
    room = max(0, ERROR_TEXT_LIMIT - len(failure.type_name) - len(message) - 3)
    text = f"{failure.type_name}: {message}\n{failure.traceback_text[-room:] if room else ''}"[:ERROR_TEXT_LIMIT]
    parts = {"type": failure.type_name, "message": message, "traceback": failure.traceback_text[-ERROR_TEXT_LIMIT:]}
    data = pickle.dumps(mitogen.core.CallError(text), 2) + pickle.dumps(parts, 2)
    return Encoded(mitogen.core.Message.ENC_PKL, data)


def decode_reply(message: mitogen.core.Message) -> Any:
    """The value of a reply. Raises CallFailed (or the subclass it names), ConnectionLost for a dead message."""
    if message.is_dead:
        raise ConnectionLost(message.data.decode("utf-8", "replace") or "the connection was closed")
    if message.enc == mitogen.core.Message.ENC_BIN:
        return Raw(message.data)
    try:
        value, parts = _unpickle(message)
    except Exception as exc:
        raise CallFailed(f"the reply cannot be decoded: {exc}") from None
    if isinstance(value, mitogen.core.CallError):
        raise _failure_from_reply(value.args[0], parts)
    return value


def _json_request(data: bytes) -> Tuple[Any, Any]:
    fields = json.loads(data.decode("utf-8"))
    return (fields["service"], fields["method"], fields.get("arguments", {})), {"deadline": fields.get("deadline")}


def _failure_from_reply(text: str, parts: Any) -> CallFailed:
    if isinstance(parts, dict) and all(isinstance(parts.get(n), str) for n in ("type", "message", "traceback")):
        return failure_from_names(parts["type"], parts["message"], parts["traceback"])
    # mitogen's own pool sends one text: "type: message", then the traceback's lines
    head, mark, tail = text.partition("\n" + _FRAME_MARK)
    type_name, colon, message = head.partition(": ")
    if not colon or " " in type_name:
        type_name, message = "mitogen.core.CallError", head
    return failure_from_names(type_name, message, (mark + tail).lstrip("\n"))


def _unpickle(message: mitogen.core.Message) -> Tuple[Any, Any]:
    """The first pickled object of a message, and the second or None."""
    data = message.data
    file = io.BytesIO(data)
    unpickler = _Unpickler(file, encoding="bytes")
    unpickler.router = message.router
    first = unpickler.load()
    second = unpickler.load() if file.tell() < len(data) else None
    return first, second


class _Unpickler(pickle.Unpickler):
    """Resolves the global names a pickle may hold. Unlike with mitogen's, a context's name never enters the router."""

    router: Optional[mitogen.core.Router] = None

    def find_class(self, module: str, name: str) -> Any:
        """What stands for the global *name*. Raises InvalidRequest for all but a few."""
        if module == "mitogen.core":
            if name == "_unpickle_context":
                return self._context
            if name == "_unpickle_sender":
                return self._sender
            if name in _PLAIN_CONSTRUCTORS:
                return _PLAIN_CONSTRUCTORS[name]
        elif (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        elif (module, name) in (("__builtin__", "bytes"), ("builtins", "bytes")):
            return bytes
        raise InvalidRequest(f"cannot unpickle {module}.{name}")

    def _context(self, context_id: int, name: Optional[str] = None) -> mitogen.core.Context:
        known = self.router.context_by_id(context_id, create=False) if self.router is not None else None
        return known or mitogen.core.Context(self.router, context_id, name)

    def _sender(self, context_id: int, handle: int) -> mitogen.core.Sender:
        if not isinstance(handle, int) or not 0 < handle < 2**32:
            raise ValueError("handle out of range")
        return mitogen.core.Sender(self._context(context_id), handle)


def _call_error(text: Any) -> mitogen.core.CallError:
    if not isinstance(text, str) or len(text) > ERROR_TEXT_LIMIT:
        raise ValueError("not an error text")
    return mitogen.core.CallError(text)


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


_PLAIN_CONSTRUCTORS: Dict[str, Any] = {
    "_unpickle_call_error": _call_error,
    "CallError": _call_error,
    "Blob": mitogen.core.Blob,
    "Secret": mitogen.core.Secret,
    "Kwargs": mitogen.core.Kwargs,
}
