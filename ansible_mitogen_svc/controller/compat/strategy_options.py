# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Makes the documented options of our strategies known to core's configuration, which reads none for strategies."""

from __future__ import annotations

from typing import Any

from ansible import constants
from ansible.parsing.yaml.loader import AnsibleLoader
from ansible.plugins.loader import fragment_loader
from ansible.template import trust_as_template
from ansible.utils.plugin_docs import add_fragments


def define_options(plugin_name: str, documentation: str, path: str) -> dict[str, Any]:
    """Register the options in `documentation` of the strategy plugin at `path`, once; returns their definitions."""
    if not constants.config.has_configuration_definition("strategy", plugin_name):
        loader = AnsibleLoader(trust_as_template(documentation))
        documented = loader.get_single_data()
        add_fragments(documented, path, fragment_loader=fragment_loader)
        constants.config.initialize_plugin_configuration_definitions("strategy", plugin_name, documented["options"])
    return dict(constants.config.get_configuration_definitions("strategy", plugin_name))
