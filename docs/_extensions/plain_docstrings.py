"""Converts docstrings from plain text with formulas to reStructuredText for autodoc.

Text in `backticks` is code, an indented block after an empty line is a formula, `name : description` starts an entry of a
definition list, and a line underlined with dashes is a heading. Everything else is plain text without special characters: |x|,
a*b and weights_ are literal.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["setup", "to_rst"]

_ENTRY = re.compile(r"^([\w*]+(?:, [\w*]+)*) :(?: (.*))?$")
_SPECIAL = re.compile(r"([\\*|]|(?<=\w)_(?!\w))")


def to_rst(lines: list[str]) -> list[str]:
    """Lines of reStructuredText for a docstring's lines without common indentation."""
    out: list[str] = []
    section = ""
    for block, is_below_empty in _blocks(lines):
        if _is_heading(block):
            section = block[0].strip()
        out += [*_rendered(block, is_below_empty, section), ""]
    return out


def _blocks(lines: list[str]) -> list[tuple[list[str], bool]]:
    """Groups of lines that belong together, each with whether an empty line precedes it."""
    blocks: list[tuple[list[str], bool]] = []
    is_below_empty, is_open = True, False
    for line in lines:
        if not line.strip():
            is_below_empty, is_open = True, False
            continue
        is_indented = line.startswith("  ")
        starts = not is_open or (not is_indented and bool(_ENTRY.match(line) or line.startswith("- ")))
        if not is_indented and is_open and _is_entry(blocks[-1][0]):
            starts = True
        if starts:
            blocks.append(([], is_below_empty))
        blocks[-1][0].append(line)
        is_below_empty, is_open = False, True
    return blocks


def _is_entry(block: list[str]) -> bool:
    return bool(_ENTRY.match(block[0]))


def _is_heading(block: list[str]) -> bool:
    return len(block) > 1 and set(block[1].strip()) == {"-"}


def _rendered(block: list[str], is_below_empty: bool, section: str) -> list[str]:
    if _is_heading(block):
        heading = [f".. rubric:: {block[0].strip()}"]
        return [*heading, "", *to_rst(block[2:])] if block[2:] else heading
    if is_below_empty and all(line.startswith("    ") for line in block):
        return ["::", "", *block]
    entry = _ENTRY.match(block[0])
    if entry:
        names = ", ".join(f"``{name}``" for name in entry[1].split(", "))
        first, rest = (f"    {_plain((entry[2] or '').strip())}".rstrip(), [f"    {_plain(line.strip())}" for line in block[1:]])
        # A parameter's type has a line of its own, above the description.
        is_type = section == "Parameters" and rest and rest[0].lstrip()[:1].isupper()
        return [names, *([first] if first else []), *([""] if is_type and first else []), *rest]
    return [_plain(line) for line in block]


def _plain(text: str) -> str:
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(f"`{part}`" if part.startswith("`") and len(part) > 2 else _SPECIAL.sub(r"\\\1", part) for part in parts)


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst(lines)


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    # scikit-learn generates these for every estimator, with links to its own pages; fields of a NamedTuple have no docstrings.
    if re.fullmatch(r"set_\w+_request", name) or type(obj).__name__ == "_tuplegetter":
        return True
    return None


def setup(app: Any) -> dict[str, bool]:
    """Connect to autodoc."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
