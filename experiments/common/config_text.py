"""An MMEngine config file, read as data and never run. No MMEngine, no torch."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.common.errors import UserError
from experiments.common.files import display_path, read_text

_NAMES = {"inf": math.inf, "nan": math.nan}  # as `Config.dump` writes them


def read_config(path: Path) -> dict[str, Any]:
    """Return the assignments of a config as plain values, or their source where only running it would tell.

    `Config.dump`, which writes the config into every work folder, leaves only literals and `dict(...)`.

    Raises:
        UserError: The file cannot be read or is not Python.
    """
    try:
        module = ast.parse(read_text(path))
        assigned = [node for node in module.body if isinstance(node, ast.Assign)]
        return {
            target.id: _value(node.value)
            for node in assigned
            for target in node.targets
            if isinstance(target, ast.Name)
        }
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{display_path(path)}: not a Python config: {error}") from None
    except RecursionError:
        raise UserError(f"{display_path(path)}: not a config: nested too deeply") from None


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.List():
            return [_value(item) for item in node.elts]
        case ast.Tuple():
            return tuple(_value(item) for item in node.elts)
        case ast.Dict() if None not in node.keys:
            return {_key(key): _value(value) for key, value in zip(node.keys, node.values) if key}
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=words) if all(word.arg for word in words):
            return {str(word.arg): _value(word.value) for word in words}
        case ast.Call(func=ast.Name(id="dict"), args=[ast.Dict() as inner], keywords=[]):
            return _value(inner)  # `Config.dump` writes so where a key is no identifier
        case ast.UnaryOp(op=ast.USub()):
            number = _value(node.operand)
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                return -number
        case ast.Name() if node.id in _NAMES:
            return _NAMES[node.id]
    return ast.unparse(node)


def _key(node: ast.expr) -> Any:
    key = _value(node)
    return key if key.__hash__ else ast.unparse(node)


def get_at(config: Any, path: str) -> Any:
    """Return the value of a dotted key, in which numbers index lists; None where there is none."""
    for part in path.split("."):
        if isinstance(config, Mapping):
            config = config.get(part)
        elif isinstance(config, (list, tuple)) and part.isdecimal() and int(part) < len(config):
            config = config[int(part)]
        else:
            return None
    return config


def flatten_keys(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted keys to values that hold no mapping; indices into lists of mappings start at 0."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found.update(flatten_keys(value, f"{prefix}{key}."))
        elif isinstance(value, (list, tuple)) and value and all(isinstance(v, Mapping) for v in value):
            found.update(flatten_keys(dict(enumerate(value)), f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found
