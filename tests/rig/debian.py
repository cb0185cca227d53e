# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The Debian (or Ubuntu) machine the tests run on: missing packages, and its own configured package mirror.

Called by `image` and by the fixtures, in the pytest process, before anything else starts.
"""
from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess

from rig.errors import RigUnavailable

# command -> Debian package that brings it
NEEDED = {
    'podman': 'podman',
    'runc': 'runc',
    'debootstrap': 'debootstrap',
    'ssh': 'openssh-client',
    'sshd': 'openssh-server',
    'sshpass': 'sshpass',
    'sudo': 'sudo',
    'gcc': 'gcc',
}
# Large, and one file of tests needs it: installed when that begins.
ASKED_FOR = {'chromium': 'chromium'}
SBIN = '/usr/local/sbin:/usr/sbin:/sbin'


def find_command(name: str) -> str | None:
    """Absolute path of a command, also when only root's PATH has its directory."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}")


def ensure_commands(*names: str) -> None:
    """Install the packages of the commands that are missing.

    Raises `RigUnavailable` when something is missing and we are not root, or apt fails.
    """
    missing = [name for name in names if find_command(name) is None]
    if not missing:
        return
    packages = sorted({{**NEEDED, **ASKED_FOR}[name] for name in missing})
    if os.geteuid() != 0 or find_command('apt-get') is None:
        raise RigUnavailable(f'not installed: {", ".join(missing)}; as root on Debian they install themselves, '
                             f'otherwise: apt-get install {" ".join(packages)}')
    environment = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    install = ['apt-get', 'install', '-y', '-q', '--no-install-recommends', *packages]
    if 'gcc' in missing:
        install.append('libc6-dev')
    for command in (['apt-get', 'update', '-q'], install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise RigUnavailable(f'{" ".join(command)} failed: {done.stderr[-2000:]}')


@dataclasses.dataclass(frozen=True)
class Mirror:
    """Where this machine's apt gets its distribution from."""

    url: str
    suite: str
    components: str
    keyring: str | None


def configured_mirror(etc: pathlib.Path = pathlib.Path('/etc')) -> Mirror:
    """The first source of the machine's own release, from deb822 ``.sources`` or one-line ``.list`` files."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', (etc / 'os-release').read_text(), re.M))
    suite = release.get('VERSION_CODENAME', '')
    components = 'main,universe' if release.get('ID') == 'ubuntu' else 'main'
    for path in sorted((etc / 'apt/sources.list.d').glob('*.sources')):
        for stanza in re.split(r'\n\s*\n', path.read_text()):
            fields = dict(re.findall(r'^([\w-]+):[ \t]*(.*)$', stanza, re.M))
            if suite in fields.get('Suites', '').split() and fields.get('URIs'):
                keyring = fields.get('Signed-By', '')
                url = fields['URIs'].split()[0]
                return Mirror(url, suite, components, keyring if keyring.startswith('/') else None)
    for path in [etc / 'apt/sources.list', *sorted((etc / 'apt/sources.list.d').glob('*.list'))]:
        if path.exists():
            found = re.search(rf'^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+{re.escape(suite)}\s', path.read_text(), re.M)
            if found:
                return Mirror(found.group(1), suite, components, None)
    raise RigUnavailable(f'no apt source for {suite or "this release"} in {etc}/apt')


def proxy_environment() -> dict[str, str]:
    """The HTTP proxy apt is configured with, as the variable debootstrap's downloader reads."""
    done = subprocess.run(['apt-config', 'dump', 'Acquire::http::Proxy'], capture_output=True, text=True, timeout=30)
    found = re.search(r'"(http[^"]+)"', done.stdout)
    return {'http_proxy': found.group(1)} if found else {}
