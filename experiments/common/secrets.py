"""Keep passwords and tokens out of what a run folder keeps."""

from __future__ import annotations

import os
import re

_HIDDEN = "***"
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@'\"]+@")
_NAMED = re.compile(
    r"""(?i)\b((?:[\w.-]*[._-])?(?:token|password|passwd|secret|api[_-]?key)['"]?\s*[=:]\s*)(?:(['"])[^'"\n]*\2|['"]?[^\s'",]+)"""
)
_VARIABLE = re.compile(r"(?i)(^|_)(token|password|passwd|secret|api_?key)$")
_MIN_LENGTH = 6  # of a variable's value: a shorter one is part of many words


def hide_secrets(text: str) -> str:
    """Return a text with `***` for the user in an address, for `token=...`, and for values of such variables."""
    for name, value in os.environ.items():
        if _VARIABLE.search(name) and len(value) >= _MIN_LENGTH:
            text = text.replace(value, _HIDDEN)
    return _NAMED.sub(rf"\g<1>\g<2>{_HIDDEN}\g<2>", _USER_IN_ADDRESS.sub(f"{_HIDDEN}@", text))
