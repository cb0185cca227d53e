#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
#
# Prints the path of a Python >= 3.11 that can make virtual environments: PYTHON of the environment first, then PATH and
# pyenv's versions. On Debian and Ubuntu as root it installs python3-venv when nothing else is missing. Called by make.
set -u

usable() {
    # pyenv's shims exist for every version and fail when it is not the selected one, hence the run.
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

candidates() {
    [ -n "${PYTHON:-}" ] && echo "$PYTHON"
    for version in 3.13 3.12 3.11 3.14; do
        command -v "python$version"
        if command -v pyenv >/dev/null 2>&1; then
            ls -d "$(pyenv root)/versions/$version".*/bin/python 2>/dev/null
        fi
    done
    command -v python3
}

first_usable() {
    candidates | while read -r python; do
        if usable "$python"; then
            "$python" -c 'import sys; print(sys.executable)'
            break
        fi
    done
}

found=$(first_usable)
if [ -z "$found" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q python3-venv; } >&2
    found=$(first_usable)
fi
if [ -z "$found" ]; then
    echo 'No Python >= 3.11 with venv and ensurepip (on Debian and Ubuntu: apt-get install python3-venv).' >&2
    exit 1
fi
echo "$found"
