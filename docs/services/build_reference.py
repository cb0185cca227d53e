# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""Writes docs/services/reference/: one page per public class of the service framework, and one for its functions.

    python docs/services/build_reference.py [--check]

Everything comes from the docstrings and signatures. `--check` writes nothing and fails when a page is not what would
be written; the unit tests do that.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from ansible_mitogen_svc import service  # noqa: E402

NOTE = "<!-- made by docs/services/build_reference.py from the docstrings: edit those -->\n\n"


def pages() -> dict[str, str]:
    """File name -> text of every page."""
    classes = {name: value for name, value in _public() if inspect.isclass(value)}
    functions = {name: value for name, value in _public() if not inspect.isclass(value)}
    written = {f"{name}.md": NOTE + _class_page(name, value) for name, value in classes.items()}
    written["functions.md"] = NOTE + "# Functions\n\n" + "".join(_function(n, f) for n, f in functions.items())
    written["README.md"] = NOTE + _index(classes, functions)
    return written


def _public() -> list[tuple[str, Any]]:
    return [(name, getattr(service, name)) for name in sorted(service.__all__, key=str.lower)]


def _index(classes: dict[str, Any], functions: dict[str, Any]) -> str:
    lines = ["# Reference of `ansible_mitogen_svc.service`\n\n| class | what it is |\n|---|---|\n"]
    lines += [f"| [{name}]({name}.md) | {_first_line(value)} |\n" for name, value in classes.items()]
    lines += ["\n| function | what it does |\n|---|---|\n"]
    lines += [f"| [{name}](functions.md#{name}) | {_first_line(value)} |\n" for name, value in functions.items()]
    return "".join(lines)


def _class_page(name: str, cls: type) -> str:
    bases = ", ".join(f"`{base.__name__}`" for base in cls.__bases__ if base is not object)
    parts = [f"# {name}\n\n", f"A kind of {bases}. " if bases else "", f"Module `{cls.__module__}`.\n\n", _text(cls)]
    if "See the module's text" in (cls.__doc__ or ""):
        parts.append(_text(sys.modules[cls.__module__]))
    if dataclasses.is_dataclass(cls):
        parts.append(_fields(cls))
    members = [(n, m) for n, m in vars(cls).items() if not n.startswith("_") and _documented(m)]
    for member_name, member in members:
        parts.append(_member(member_name, member))
    return "".join(parts).rstrip() + "\n"


def _fields(cls: type) -> str:
    """The fields of a dataclass, with the `#:` comments above them."""
    lines, comment = [], ""
    for line in inspect.getsource(cls).splitlines():
        line = line.strip()
        if line.startswith("#:"):
            comment = line[2:].strip()
        elif ":" in line and line.partition(":")[0] in {field.name for field in dataclasses.fields(cls)}:
            name, _, declared = line.partition(":")
            declared = declared.split(" = field(")[0].strip().replace('"', "")
            lines.append(f"- `{name}`: `{declared}`" + (f": {comment}" if comment else "") + "\n")
            comment = ""
    return "".join(lines) + "\n"


def _documented(member: Any) -> bool:
    if isinstance(member, (classmethod, staticmethod)):
        member = member.__func__
    return bool(inspect.isfunction(member) or isinstance(member, property)) and bool(member.__doc__)


def _member(name: str, member: Any) -> str:
    if isinstance(member, property):
        return f"## {name}\n\nAn attribute. {_text(member)}"
    function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
    return _function(name, function)


def _function(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    given = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name not in ("self", "cls")]
    shown = str(signature.replace(parameters=given, return_annotation=signature.empty))
    return f"## {name}\n\n`{name}{shown}`\n\n{_text(function)}"


def _text(value: Any) -> str:
    text = (inspect.getdoc(value) or "").replace("``", "`")
    blocks, listing = [], False
    for line in text.splitlines():
        # "Args:" and the like open an indented list: markdown wants its items marked
        if line in ("Args:", "Attributes:"):
            listing = True
            blocks.append(f"{line}\n")
        elif listing and line.startswith("    ") and not line.startswith("     ") and ": " in line:
            item, _, meaning = line.strip().partition(": ")
            blocks.append(f"- `{item}`: {meaning}")
        elif listing and line.startswith("     "):
            blocks.append("  " + line.strip())
        else:
            if listing and line and not line.startswith("    "):
                listing = False
                blocks.append("")
            blocks.append(line)
    return "\n".join(blocks).strip() + "\n\n"


def _first_line(value: Any) -> str:
    return (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ").replace("``", "`").replace("|", "\\|")


def main() -> int:
    """Write the pages, or compare them."""
    folder, wanted = HERE / "reference", pages()
    present = {path.name: path.read_text() for path in folder.glob("*.md")}
    if "--check" in sys.argv[1:]:
        stale = sorted(name for name in {*wanted, *present} if wanted.get(name) != present.get(name))
        print("\n".join(f"stale: {name}" for name in stale))
        return bool(stale)
    folder.mkdir(exist_ok=True)
    for name in present.keys() - wanted.keys():
        (folder / name).unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
