# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Compares the runner results of two runs field by field; what may differ is listed here, by name, with the reason.

Called with two runs' records by the `compare` command, the demo and the integration tests. A volatile field is not
dropped: its value becomes ``<volatile TYPE>``, so that a field that is missing, null or of another type still counts as
a difference.
"""
from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# field name (or parent.name) at any depth -> why its value may differ between two runs of the same play
VOLATILE_FIELDS: Mapping[str, str] = {
    'start': 'clock', 'end': 'clock', 'delta': 'clock',
    'atime': 'clock', 'mtime': 'clock', 'ctime': 'clock',
    'elapsed': 'clock', 'epoch': 'clock', 'last_check': 'clock',
    'ansible_date_time': 'clock', 'date_time': 'clock', 'ansible_uptime_seconds': 'clock',
    'ino': 'each run has a file system of its own', 'inode': 'each run has a file system of its own',
    'stat.version': 'inode generation',
    'dev': 'each run has a file system of its own', 'device_type': 'each run has a file system of its own',
    'ansible_job_id': 'random part and process id', 'results_file': 'contains the job id',
    'pid': 'process id', 'ppid': 'process id', 'child_pid': 'process id',
    'ansible_memfree_mb': 'load of the machine', 'ansible_memory_mb': 'load of the machine',
    'ansible_swapfree_mb': 'load of the machine', 'ansible_loadavg': 'load of the machine',
    'block_available': 'fill of the disk', 'block_used': 'fill of the disk', 'size_available': 'fill of the disk',
    'inode_available': 'fill of the disk', 'inode_used': 'fill of the disk',
    'ansible_interfaces': 'containers of others come and go', 'ansible_all_ipv4_addresses': 'containers of others',
    'ansible_all_ipv6_addresses': 'containers of others', 'SSH_CLIENT': 'client port', 'SSH_CONNECTION': 'client port',
    'ansible_podman0': 'containers of others', 'uuid': 'random',
}
# facts named after a network interface of a neighbour container
VOLATILE_KEYS = re.compile(r'ansible_(veth|cni|br_|docker)\w*')

# (pattern in any text, replacement, reason)
VOLATILE_TEXT: Sequence[tuple[str, str, str]] = (
    (r'ansible-tmp-[\d.]+-\d+-\d+', '<tmpdir>', 'clock, process id and random number'),
    (r'ansible-moduletmp-[\d.]+-\w{8}', '<module tmpdir>', 'clock and random name'),
    (r'ansible-local-\d+\w+', '<local tmpdir>', 'process id and random number'),
    (r'/tmp/svc-run-[^/\s\'"]+/(core|svc)-[^/\s\'"]+', '<run>', 'directory of the run'),
    (r'/tmp/svc-rig-\w{8}', '<rig>', 'directory of the hosts: what core gives may be kept from another session'),
    (r'ansible_([\w.]+?)_payload_\w{8}', r'ansible_\1_payload_<random>', 'random name of the unpacked module'),
    (r'\.ansible_tmp\w+', '.ansible_tmp<random>', 'random name of the file before it is renamed'),
    (r'/tmp/(ansible\.)?tmp\w{8}|\btmp[a-z0-9_]{8}\b', '<tmpfile>', 'random name'),
    (r'/(ansible|rig)\.\w{8}', r'/\1.<random>', 'random name by the tempfile module'),
    (r'<local tmpdir>/\.\w{8}', '<local tmpdir>/.<random>', 'random name'),
    (r'^\.[a-z0-9_]{8}$', '.<random>', 'random name of a file with the content of a task, which 2.19 shows'),
    (r'127\.(6[4-9]|7\d)\.\d+\.\d+', '<address>', 'each host has an address of its own'),
    (r'j\d+\.\d+', '<job id>', 'random number and process id'),
    (r'\.\d+\.\d{4}-\d\d-\d\d@\d\d:\d\d:\d\d~', '.<backup>~', 'process id and clock'),
    (r'\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?', '<time>', 'clock'),
    (r'SHA256:[\w+/]{43}', 'SHA256:<fingerprint>', 'keys are made for a run'),
    (r'0x[0-9a-f]{6,}', '<object address>', 'memory'),
    (r'BECOME-SUCCESS-[a-z]{32}', '<become success>', 'random'),
    (r'sudo-[a-z]{32}|key=[a-z]{32}', '<become prompt>', 'random'),
)
_TEXT = [(re.compile(pattern), replacement) for pattern, replacement, _reason in VOLATILE_TEXT]

# How often an asynchronous task is polled depends on the clock; its end does not. A play's record tells its strategy.
UNCOUNTED_EVENTS = frozenset({'async_poll', 'play'})


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """What may differ beyond the lists above: ``field`` (dotted, ``*`` wild) of tasks named ``task`` (wild)."""

    field: str
    reason: str
    task: str = '*'


#: What two runs under core itself do not agree on in results of well-known modules.
COMMON_TOLERANCES = (
    Tolerance("stat.version", "generation number of a new file"),
    Tolerance("ansible_facts.ansible_mounts.*", "listed in the order in which threads end"),
    Tolerance("ansible_facts.ansible_virtualization_tech_*", "a set's order"),
    # The facts of a host over connection local show with what a compared run was started.
    Tolerance("ansible_facts.ansible_env.ANSIBLE_STRATEGY", "what the two runs are to differ in"),
    Tolerance("ansible_facts.ansible_env.ANSIBLE_MITOGEN_SVC_RESULTS", "each run records to a file of its own"),
    Tolerance("ansible_facts.ansible_env.ANSIBLE_MITOGEN_SVC_STATS", "each run records to a file of its own"),
)


@dataclasses.dataclass(frozen=True)
class Difference:
    """One field of one result that differs; ``core`` and ``ours`` are the compared values, shortened."""

    host: str
    task: str
    path: str
    field: str
    core: str
    ours: str

    def __str__(self) -> str:
        return f'{self.host} | {self.task} | {self.path} | {self.field}\n    core: {self.core}\n    ours: {self.ours}'


MISSING = '<missing>'


def compare(core: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]],
            tolerances: Sequence[Tolerance] = ()) -> list[Difference]:
    """Differences between two lists of records, host by host in order; empty when they are equal."""
    found: list[Difference] = []
    core_hosts, our_hosts = _by_host(core), _by_host(ours)
    for host in sorted(core_hosts.keys() | our_hosts.keys()):
        left, right = core_hosts.get(host, []), our_hosts.get(host, [])
        matcher = difflib.SequenceMatcher(None, [_key(r) for r in left], [_key(r) for r in right], autojunk=False)
        for tag, a, b, c, d in matcher.get_opcodes():
            if tag == 'equal':
                for first, second in zip(left[a:b], right[c:d], strict=True):
                    found += _fields(first, second, tolerances)
            else:
                found += [_unmatched(record, core=True) for record in left[a:b]]
                found += [_unmatched(record, core=False) for record in right[c:d]]
    return found


def _by_host(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    hosts: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record['event'] not in UNCOUNTED_EVENTS:
            hosts.setdefault(record['host'], []).append(record)
    return hosts


def _key(record: Mapping[str, Any]) -> tuple[str, str, str]:
    return record['event'], _text(record['task']), record['path']


def _unmatched(record: Mapping[str, Any], core: bool) -> Difference:
    value = f'{record["event"]}: {_short(record["result"])}'
    return Difference(record['host'], record['task'], record['path'], 'event', value if core else MISSING,
                      MISSING if core else value)


def _fields(core: Mapping[str, Any], ours: Mapping[str, Any], tolerances: Sequence[Tolerance]) -> Iterator[Difference]:
    left, right = dict(_leaves('', _stable(core['result']))), dict(_leaves('', _stable(ours['result'])))
    left['ignored'], right['ignored'] = core.get('ignored'), ours.get('ignored')
    for field in sorted(left.keys() | right.keys()):
        first, second = left.get(field, MISSING), right.get(field, MISSING)
        if first != second and not _tolerated(core['task'], field, tolerances):
            yield Difference(core['host'], core['task'], core['path'], field, _short(first), _short(second))


def _tolerated(task: str, field: str, tolerances: Sequence[Tolerance]) -> bool:
    return any(fnmatch.fnmatchcase(task, entry.task) and fnmatch.fnmatchcase(field, entry.field)
               for entry in tolerances)


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted names and scalar values; an empty container counts as a value."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f'{prefix}.{name}' if prefix else str(name), inner)
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _leaves(f'{prefix}.{number}', inner)
    else:
        yield prefix, value


def _stable(value: Any, parent: str = '') -> Any:
    if isinstance(value, dict):
        return {_text(str(name)): _volatile(inner) if _is_volatile(parent, name, inner) else _stable(inner, str(name))
                for name, inner in value.items() if not VOLATILE_KEYS.fullmatch(str(name))}
    if isinstance(value, list):
        return [_stable(inner, parent) for inner in value]
    return _text(value) if isinstance(value, str) else value


def _is_volatile(parent: str, name: str, value: Any) -> bool:
    return value is not None and (name in VOLATILE_FIELDS or f'{parent}.{name}' in VOLATILE_FIELDS)


def _volatile(value: Any) -> str:
    return f'<volatile {type(value).__name__}>'


def _text(value: str) -> str:
    for pattern, replacement in _TEXT:
        value = pattern.sub(replacement, value)
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 700 else f'{text[:450]} ... {text[-220:]}'
