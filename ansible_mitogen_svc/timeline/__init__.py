# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What the callback `ansible_mitogen.svc.timeline` collects and writes; main process and main thread only."""
