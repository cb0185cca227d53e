# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Byte formats shared by the controller and by what runs on targets; Python >= 3.8, standard library only."""

from __future__ import annotations
