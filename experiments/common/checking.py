"""Checks of YAML content against a pydantic model, with one-line messages."""

from __future__ import annotations

import reprlib
import types
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from experiments.common.errors import UserError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)
_BOUNDED = reprlib.Repr()  # a few lines of YAML with anchors can stand for billions of items
_BOUNDED.maxlevel, _BOUNDED.maxlist, _BOUNDED.maxdict, _BOUNDED.maxtuple = 4, 12, 12, 12
_BOUNDED.maxstring = _BOUNDED.maxlong = _BOUNDED.maxother = 300


def check_keys(raw: dict[str, Any], model: type[BaseModel], where: str, extra: Collection[str] = ()) -> None:
    """Raise UserError for a misspelt key at any depth of a mapping that need not be complete.

    The message names the key's dotted path and the nearest valid key.

    Args:
        where: Begins the message: a file, say.
        extra: Keys allowed at the top beside the model's.
    """
    _check_fields(raw, {**dict.fromkeys(extra, Any), **_fields(model)}, f"{where}: ")


def validate(model: type[Model], raw: Any, where: str) -> Model:
    """Return the model's instance; raise UserError with `where`, the dotted key, its value and what is allowed."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{where}: {describe_mistake(error)}") from None


def describe_mistake(error: ValidationError) -> str:
    """Return the first mistake as `key: value is not allowed: why`."""
    first = error.errors()[0]
    place, value, kind = _dotted(first["loc"]), first["input"], first["type"]
    if kind == "value_error":  # raised by a validator of ours, whose message is complete
        text = first["msg"].removeprefix("Value error, ")
        inner, colon, _ = text.partition(": ")
        joined = "." if isinstance(value, dict) and colon and inner.replace(".", "").isidentifier() else ": "
        return f"{place}{joined}{text}" if place else text
    if kind == "missing":
        return f"{place}: is missing"
    if kind == "extra_forbidden":
        return f"{place}: unknown key"
    if kind in ("model_type", "dict_type"):
        return f"{place or 'it'}: must be a mapping, not {format_value(value)}"
    reason = first["msg"][0].lower() + first["msg"][1:]
    return f"{place}: {format_value(value)} is not allowed: {reason}"


def format_value(value: Any) -> str:
    """Return a value as Python writes it; of a long or deeply nested one only a part, in bounded time."""
    try:
        return _BOUNDED.repr(value)
    except ValueError:  # a number of thousands of digits: Python does not write it, but YAML's `0x` makes it
        return "a number of thousands of digits"


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        if part == "[key]":  # pydantic's word for a key, not a value, that is wrong
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _check_fields(raw: dict[str, Any], fields: dict[str, Any], prefix: str) -> None:
    for key, value in raw.items():
        if key not in fields:
            raise UserError(f"{prefix}{key}: unknown key; {did_you_mean(key, fields)}")
        _check_below(value, fields[key], f"{prefix}{key}")


def _check_below(value: Any, annotation: Any, place: str) -> None:
    kind, arguments = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        _check_below(value, arguments[0], place)
    elif kind in (Union, types.UnionType):
        for member in arguments:
            _check_below(value, member, place)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel) and isinstance(value, dict):
        _check_fields(value, _fields(annotation), f"{place}.")
    elif kind is dict and isinstance(value, dict) and get_origin(arguments[0]) is Literal:
        _check_fields(value, dict.fromkeys(get_args(arguments[0]), arguments[1]), f"{place}.")
    elif kind is dict and isinstance(value, dict):
        for key, item in value.items():
            _check_below(item, arguments[1], f"{place}.{key}")
    elif kind is list and isinstance(value, list):
        for index, item in enumerate(value):
            _check_below(item, arguments[0], f"{place}[{index}]")
    elif kind is list:  # one may stand for a list of one
        _check_below(value, arguments[0], place)


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {name: field.annotation for name, field in model.model_fields.items()}
