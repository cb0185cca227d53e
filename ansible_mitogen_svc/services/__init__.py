# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""What we host on the service framework, on the Pool of the ansible-playbook process."""
