"""Keys under a recipe's `set`: checked against the config and against the classes that it names."""

from __future__ import annotations

import inspect
from typing import Any

from mmengine import Config, ConfigDict
from mmengine.runner import Runner
from torch.nn import Module

from experiments.common.errors import UserError, did_you_mean

# What MMEngine and mmcv take from a config themselves, for classes and all that derive from them.
_NORM = ("requires_grad",)
_TAKEN_BESIDE = {
    "Runner": ("auto_scale_lr", "compile", "find_unused_parameters", "model_wrapper_cfg", "sync_bn"),
    "Hook": ("priority",),
    "OptimWrapper": ("constructor", "paramwise_cfg"),
    "_ParamScheduler": ("convert_to_iter_based",),
    "_NormBase": _NORM, "GroupNorm": _NORM, "LayerNorm": _NORM,
}  # fmt: skip


_REQUIRED = (
    "model", "optim_wrapper", "optim_wrapper.optimizer", "train_cfg", "env_cfg", "default_hooks",
    "train_dataloader", "train_dataloader.dataset", "val_dataloader", "val_dataloader.dataset", "val_evaluator",
)  # fmt: skip


def set_key(config: Config, key: str, value: Any) -> None:
    """Set one dotted MMEngine key in place; a number counts into a list; a mapping replaces the old value.

    A key must exist, or be a parameter of the class that its `type` names. A leading `+` allows any.

    Raises:
        UserError: The key does not exist; names the nearest one that does.
    """
    free, path = key.startswith("+"), key.removeprefix("+").split(".")
    node: Any = config._cfg_dict
    for depth, part in enumerate(path):
        where = ".".join(path[:depth])
        index: Any = part
        if isinstance(node, (list, tuple)):
            if not (part.isdecimal() and int(part) < len(node)):
                last = len(node) - 1
                raise UserError(
                    f"set.{key}: '{where}' is a list of {len(node)}; '{part}' is not one of 0..{last}"
                )
            index = int(part)
        elif not isinstance(node, dict):
            raise UserError(f"set.{key}: '{where}' is {_short(node)}, which has no '{part}'")
        elif not free and part not in node:
            _check_parameter(node, part, where, key)
        if depth < len(path) - 1:
            if isinstance(node, dict) and node.get(part) is None:
                node[part] = ConfigDict()
            node = node[index]
    if isinstance(node, tuple):
        raise UserError(f"set.{key}: '{where}' is a tuple; set it as a whole")
    if not free:
        _check_kind(node[index] if isinstance(node, list) else node.get(index), value, key)
    node[index] = value if free and isinstance(node, dict) else _checked(value, key)


def _check_kind(old: Any, new: Any, key: str) -> None:
    """Refuse a number or text for a part of the config, and null for one that every training needs."""
    is_part = isinstance(old, (dict, list, tuple)) and bool(old)
    if is_part and not (isinstance(new, (dict, list)) and new) and (new is not None or key in _REQUIRED):
        kind = "mapping" if isinstance(old, dict) else "list"
        raise UserError(
            f"set.{key}: {_short(new)} is not allowed: a {kind}", f"--set {key}.KEY=VALUE sets a part of it"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_parameter(node: dict, name: str, where: str, key: str) -> None:
    parameters = list_class_parameters(node.get("type") if where else Runner)
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
    """Check the keys of a mapping that names a `type`, at every depth."""
    if key.endswith(".type") and not isinstance(value, str):
        raise UserError(f"set.{key}: {_short(value)} is not allowed: the name of a class")
    if isinstance(value, dict):
        parameters = list_class_parameters(value.get("type")) if "type" in value else None
        for name in value:
            if parameters is not None and name != "type" and name not in parameters:
                raise UserError(
                    f"set.{key}: {value['type']} has no '{name}'; {did_you_mean(name, parameters)}",
                    "put + in front of the key to set it all the same",
                )
        return ConfigDict({name: _checked(item, f"{key}.{name}") for name, item in value.items()})
    if isinstance(value, list):
        return [_checked(item, f"{key}.{i}") for i, item in enumerate(value)]
    return value


def list_class_parameters(kind: Any) -> set[str] | None:
    """Return the names that a config may give beside `type` where it names the class `kind`.

    They are the class's parameters, and those of the bases that it passes keywords on to. None where that
    cannot be known: no such class, or one that hands any keyword to something else.
    """
    cls = _find_class(kind)
    if cls is None:
        return None
    bases = cls.__mro__ if inspect.isclass(cls) else ()
    initialisers = [vars(base)["__init__"] for base in bases if "__init__" in vars(base)]
    names = {"_scope_"}.union(*(_TAKEN_BESIDE.get(base.__name__, ()) for base in bases))
    passed_on = False
    for function in initialisers or [cls]:
        if function in (object.__init__, Module.__init__):  # they take no keyword, whatever they declare
            break
        parameters = inspect.signature(function).parameters.values()
        names |= {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        passed_on = any(p.kind is p.VAR_KEYWORD for p in parameters)
        if not passed_on:
            break
    return None if passed_on else names - {"self"}


def _find_class(kind: Any) -> Any:
    import mmdet.registry
    import mmengine.registry
    from mmdet.utils import register_all_modules

    if not isinstance(kind, str):
        return kind if callable(kind) else None
    register_all_modules(init_default_scope=False)
    # `mmdet.registry` also holds MMEngine's registries, which know mmcv's classes of the same names
    registries = [
        registry
        for module in (mmdet.registry, mmengine.registry)
        for registry in vars(module).values()
        if isinstance(registry, mmengine.registry.Registry)
    ]
    registries.sort(key=lambda registry: registry.scope != "mmdet")
    return next((cls for registry in registries if (cls := registry.get(kind)) is not None), None)
