"""Text made harmless: for a terminal, for a spreadsheet, and for whoever reads a run folder."""

from __future__ import annotations

import os
import re
from typing import Any

# A terminal obeys these: all control characters but line breaks and tabs, and those that reorder a line.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_NUMBERS = re.compile(r"[-+0-9.eE\s]*")

_HIDDEN = "***"
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@'\"]+@")
_NAMED = re.compile(
    r"""(?i)\b((?:[\w.-]*[._-])?(?:token|password|passwd|secret|api[_-]?key)['"]?\s*[=:]\s*)(?:(['"])[^'"\n]*\2|['"]?[^\s'",]+)"""
)
_VARIABLE = re.compile(r"(?i)(^|_)(token|password|passwd|secret|api_?key)$")
_MIN_LENGTH = 6  # of a variable's value: a shorter one is part of many words


def printable(text: str) -> str:
    """Return text with a question mark in a diamond for each character that a terminal would obey."""
    return _CONTROLS.sub("\ufffd", text)


def printable_values(content: Any) -> Any:
    """Return what JSON holds, with its names and texts printable; a `patch` stays as it is, to be applied."""
    if isinstance(content, str):
        return printable(content)
    if isinstance(content, list):
        return [printable_values(value) for value in content]
    if isinstance(content, dict):
        return {printable(k): v if k == "patch" else printable_values(v) for k, v in content.items()}
    return content


def make_cell_safe(value: Any) -> Any:
    """Return a value as a CSV cell: a text that a spreadsheet would calculate begins with an apostrophe."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") and not _NUMBERS.fullmatch(value):
        return f"'{value}"
    return value


def hide_secrets(text: str) -> str:
    """Return a text with `***` for the user in an address, for `token=...`, and for values of such variables."""
    for name, value in os.environ.items():
        if _VARIABLE.search(name) and len(value) >= _MIN_LENGTH:
            text = text.replace(value, _HIDDEN)
    return _NAMED.sub(rf"\g<1>\g<2>{_HIDDEN}\g<2>", _USER_IN_ADDRESS.sub(f"{_HIDDEN}@", text))
