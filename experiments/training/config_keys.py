"""Keys under a recipe's `set`: checked against the config and against the classes that it names."""

from __future__ import annotations

import inspect
from typing import Any

from mmengine import Config, ConfigDict

from experiments.errors import UserError, did_you_mean


def set_key(config: Config, key: str, value: Any) -> None:
    """Sets one dotted MMEngine key in place; a number counts into a list; a mapping replaces what was there.

    A key must exist, or be a parameter of the class that its `type` names. A leading `+` allows any.

    Raises:
        UserError: The key does not exist; names the nearest one that does.
    """
    free, path = key.startswith("+"), key.removeprefix("+").split(".")
    node: Any = config._cfg_dict
    for depth, part in enumerate(path[:-1]):
        node = _step(node, part, ".".join(path[:depth]), key, free)
    last, where = path[-1], ".".join(path[:-1])
    if isinstance(node, (list, tuple)):
        _index(node, last, where, key)
        if isinstance(node, tuple):
            raise UserError(f"set.{key}: '{where}' is a tuple; set it as a whole")
        node[int(last)] = _checked(value, key)
        return
    if not isinstance(node, dict):
        raise UserError(f"set.{key}: '{where}' is {_short(node)}, which has no '{last}'")
    if not free and last not in node:
        _check_parameter(node, last, where, key)
    node[last] = value if free else _checked(value, key)


def _step(node: Any, part: str, where: str, key: str, free: bool) -> Any:
    if isinstance(node, (list, tuple)):
        return node[_index(node, part, where, key)]
    if not isinstance(node, dict):
        raise UserError(f"set.{key}: '{where}' is {_short(node)}, which has no '{part}'")
    if part not in node or node[part] is None:
        if not free and part not in node:
            _check_parameter(node, part, where, key)
        node[part] = ConfigDict()
    return node[part]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _index(node: Any, part: str, where: str, key: str) -> int:
    if not (part.isdecimal() and int(part) < len(node)):
        raise UserError(
            f"set.{key}: '{where}' is a list of {len(node)}; '{part}' is not one of 0..{len(node) - 1}"
        )
    return int(part)


def _check_parameter(node: dict, name: str, where: str, key: str) -> None:
    parameters = class_parameters("Runner" if not where else node.get("type"))
    if parameters is not None and name in parameters:
        return
    allowed = {str(k) for k in node} | set(parameters or ())
    place = f"'{where}'" if where else "the config"
    if where and node.get("type"):
        place += f" ({node['type']})"
    raise UserError(
        f"set.{key}: {place} has no '{name}'; {did_you_mean(name, allowed)}",
        f"put + in front to add it all the same: +{key}",
    )


def _checked(value: Any, key: str) -> Any:
    """Checks the keys of a mapping that names a `type`, at every depth."""
    if isinstance(value, dict):
        parameters = class_parameters(value.get("type")) if "type" in value else None
        for name in value:
            if parameters is not None and name != "type" and name not in parameters:
                raise UserError(
                    f"set.{key}: {value['type']} has no '{name}'; {did_you_mean(name, parameters)}"
                )
        return ConfigDict({name: _checked(item, f"{key}.{name}") for name, item in value.items()})
    if isinstance(value, list):
        return [_checked(item, f"{key}.{i}") for i, item in enumerate(value)]
    return value


def class_parameters(kind: Any) -> set[str] | None:
    """Names that the registered class `kind` takes when built, its bases' included; None where unknown."""
    cls = _find_class(kind)
    if cls is None:
        return None
    names = {"_scope_"}
    for base in cls.__mro__ if inspect.isclass(cls) else ():
        names |= _TAKEN_BESIDE.get(base.__name__, set())
    for function in _initialisers(cls):
        parameters = inspect.signature(function).parameters.values()
        names |= {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names - {"self"}  # nothing is passed on to the bases
    return None  # it hands what it is given to something that cannot be known here


def _initialisers(cls: Any) -> Iterator[Any]:
    """What takes the keywords of `cls`: its own `__init__`, then those of its bases; or the function it is."""
    if not inspect.isclass(cls):
        yield cls
        return
    for base in cls.__mro__:
        if base is object or base.__name__ == "Module":  # torch's takes any keyword, to refuse it
            yield lambda self: None
            return
        if "__init__" in vars(base):
            yield base.__init__


def _find_class(kind: Any) -> Any:
    import mmdet.registry
    import mmengine.registry
    from mmdet.utils import register_all_modules

    if not isinstance(kind, str):
        return kind
    if kind == "Runner":
        from mmengine.runner import Runner

        return Runner
    register_all_modules(init_default_scope=False)
    for module in (mmdet.registry, mmengine.registry):
        for registry in vars(module).values():
            if isinstance(registry, mmengine.registry.Registry):
                cls = registry.get(kind)
                if cls is not None:
                    return cls
    return None
