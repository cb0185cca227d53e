# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Runs unchanged Ansible playbooks over persistent mitogen connections. See README.md.

Imports nothing: mitogen's importer ships this file to children that host a service, and cannot ship a package
without one.
"""
