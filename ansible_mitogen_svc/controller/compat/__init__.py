# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Everything that depends on ansible-core's private names, in two adapters: {2.19, 2.20} and {2.21, 2.22}.

Checked against 2.19.14, 2.20.10, 2.21.5 and 2.22.0rc1. Nothing else in this project imports private names of core.
"""
