# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""The command `ansible-mitogen-svc`; each subcommand is a module here, started by `main`."""
