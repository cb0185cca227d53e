#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
#
# Prints the path of a Python >= 3.11 that can make virtual environments, the newest first: PATH, then pyenv's versions.
# Called by the Makefile. PYTHON in the environment wins.
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

candidates | while read -r python; do
    if usable "$python"; then
        "$python" -c 'import sys; print(sys.executable)'
        break
    fi
done
