# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Build hook of the wheel: adds the collection's half.

Called by hatchling (`pip install .`, `python -m build`) in the build process. A normal wheel gets
`ansible_collections/ansible_mitogen/svc/` with the plugins, `meta/` and the MANIFEST.json and FILES.json that
`ansible-galaxy collection list` and `verify` read; an editable one gets a link to the checkout instead.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COLLECTION = "ansible_collections/ansible_mitogen/svc"
# What ansible-core reads of an installed collection. The Python package is not repeated here: site-packages has it.
CARRIED = ("plugins", "meta", "changelogs/changelog.yaml", "CHANGELOG.rst", "README.md", "LICENSE")
# The number ansible-galaxy writes into both JSON files; ansible/galaxy/collection/__init__.py, MANIFEST_FORMAT.
FORMAT = 1
# Made beside the artifact while it is built.
METADATA = "collection-metadata"


class CustomBuildHook(BuildHookInterface[Any]):
    """Hatchling's entry point; its name is fixed by hatchling."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        if version == "editable":
            link_checkout(root)
            return
        build_data["force_include"].update({str(root / name): f"{COLLECTION}/{name}" for name in carried_files(root)})
        for path in write_metadata(root, Path(self.directory) / METADATA):
            build_data["force_include"][str(path)] = f"{COLLECTION}/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing but the artifacts in the directory that they are uploaded from."""
        shutil.rmtree(Path(self.directory) / METADATA, ignore_errors=True)


def link_checkout(root: Path) -> None:
    """Make `.dev`, which the editable wheel puts on the import path, show the checkout as an installed collection."""
    link = root / ".dev" / COLLECTION
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    link.symlink_to(root, target_is_directory=True)


def carried_files(root: Path) -> list[str]:
    """Paths relative to the root of the files that belong to the installed collection, sorted."""
    found = []
    for name in CARRIED:
        top = root / name
        candidates = top.rglob("*") if top.is_dir() else [top]
        found += [path.relative_to(root) for path in candidates if path.is_file()]
    return sorted(path.as_posix() for path in found if not any(map(is_left_behind, path.parts)))


def is_left_behind(name: str) -> bool:
    """Whether a file or directory of this name is what a tool left: byte code, caches, editors' files."""
    return name == "__pycache__" or name.startswith(".")


def files_manifest(root: Path, names: list[str]) -> dict[str, Any]:
    """The contents of FILES.json: every directory and every file with its sha256."""
    directories = {parent.as_posix() for name in names for parent in Path(name).parents}
    entries = [
        {"name": name, "ftype": "dir", "chksum_type": None, "chksum_sha256": None, "format": FORMAT}
        for name in sorted(directories)
    ]
    for name in names:
        digest = hashlib.sha256((root / name).read_bytes()).hexdigest()
        entries.append(
            {"name": name, "ftype": "file", "chksum_type": "sha256", "chksum_sha256": digest, "format": FORMAT}
        )
    return {"files": entries, "format": FORMAT}


def collection_manifest(root: Path, files_json: bytes) -> dict[str, Any]:
    """The contents of MANIFEST.json, from galaxy.yml."""
    galaxy = yaml.safe_load((root / "galaxy.yml").read_text(encoding="utf-8"))
    names = ("namespace", "name", "version", "authors", "readme", "tags", "description", "license_file", "repository")
    info = {name: galaxy.get(name) for name in (*names, "documentation", "homepage", "issues")}
    info["license"] = galaxy.get("license") or []
    info["dependencies"] = galaxy.get("dependencies") or {}
    checksum = hashlib.sha256(files_json).hexdigest()
    return {
        "collection_info": info,
        "file_manifest_file": {
            "name": "FILES.json",
            "ftype": "file",
            "chksum_type": "sha256",
            "chksum_sha256": checksum,
            "format": FORMAT,
        },
        "format": FORMAT,
    }


def write_metadata(root: Path, directory: Path) -> list[Path]:
    """Write FILES.json and MANIFEST.json into directory and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    files_json = json.dumps(files_manifest(root, carried_files(root)), indent=1).encode()
    manifest_json = json.dumps(collection_manifest(root, files_json), indent=1).encode()
    written = []
    for name, text in (("FILES.json", files_json), ("MANIFEST.json", manifest_json)):
        (directory / name).write_bytes(text)
        written.append(directory / name)
    return written
