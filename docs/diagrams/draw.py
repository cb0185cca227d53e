# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Draws the pages' diagrams with Graphviz: `python docs/diagrams/draw.py` makes NAME.svg of each NAME.dot.

The drawings are in the repository, so that the pages can be built without Graphviz. Each says the checksum of what it
was drawn from, by which a test sees that it was not forgotten; it cannot draw again, as versions differ in coordinates.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def mark(source: Path) -> str:
    """The comment that ends the drawing of a source."""
    return f"<!-- drawn from {source.name}, sha256 {hashlib.sha256(source.read_bytes()).hexdigest()} -->\n"


def main() -> int:
    """Draw all; returns the exit status."""
    for source in sorted(HERE.glob("*.dot")):
        done = subprocess.run(["dot", "-Tsvg", str(source)], check=True, capture_output=True, text=True, timeout=60)
        source.with_suffix(".svg").write_text(done.stdout + mark(source))
    return 0


if __name__ == "__main__":
    sys.exit(main())
