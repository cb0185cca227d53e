# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Runs playbooks with a recorder and compares what they recorded: for the `compare` command, the demo and the tests."""
