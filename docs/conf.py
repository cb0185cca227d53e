# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Configuration of Sphinx; `nox -s docs` makes plugins/ by antsibull-docs, then the pages, a warning being an error."""

from __future__ import annotations

project = "ansible_mitogen.svc"
author = "The ansible_mitogen_svc authors"
extensions = ["myst_parser", "sphinx_antsibull_ext"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
html_theme = "furo"
# The pages of plugins point to ansible-core's, which are not part of these.
suppress_warnings = ["ref.ref"]
