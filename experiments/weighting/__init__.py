"""The method and its rivals: one rule a file, plain PyTorch, no MMDetection.

Importing this package does not import torch, so that recipes can be checked without it.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from experiments.common.errors import did_you_mean
from experiments.weighting.options import ACTIONS, OptionError, check_options, is_users_own

if TYPE_CHECKING:
    from experiments.weighting.base import WeightingRule

__all__ = ["ACTIONS", "OptionError", "build_weighting", "check_options", "is_users_own"]

RULES = {
    "uniform": "experiments.weighting.uniform:Uniform",
    "static": "experiments.weighting.static:Static",
    "avw": "experiments.weighting.avw:AVW",
    "rlo": "experiments.weighting.rlo:RLO",
    "random": "experiments.weighting.random:Random",
    "dwa": "experiments.weighting.dwa:DWA",
    "uncertainty": "experiments.weighting.uncertainty:Uncertainty",
}


def build_weighting(rule: str, num_levels: int, seed: int = 0, **options: Any) -> WeightingRule:
    """Build a weighting rule.

    Args:
        rule: A built-in rule's name, or `module:Class` of a user's own subclass of `WeightingRule`.
        num_levels: K, the number of pyramid levels whose losses are weighted.
        seed: Seeds the rule's own generator; all ranks of a run pass the same.
        options: The rule's options; see `experiments.weighting.options`.

    Raises:
        OptionError (a ValueError): Unknown rule or option, or a value that is not allowed: one line naming it.
    """
    if isinstance(num_levels, bool) or not isinstance(num_levels, int) or num_levels < 1:
        raise OptionError(f"num_levels: {num_levels!r} is not allowed: at least 1")
    options = check_options(rule, options, num_levels)
    cls = _load(RULES.get(rule, rule))
    if rule not in RULES:
        _check_signature(rule, cls, options)
    return cls(num_levels=num_levels, seed=seed, **options)


def _load(path: str) -> type[WeightingRule]:
    from experiments.weighting.base import WeightingRule

    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.partition(".")[0] and error.name != module_name:
            raise  # the user's module exists, but lacks something itself
        raise OptionError(f"rule: module '{module_name}' of '{path}' cannot be imported: {error}") from None
    cls = getattr(module, name, None)
    if not (inspect.isclass(cls) and issubclass(cls, WeightingRule)):
        raise OptionError(f"rule: '{path}' is not a subclass of experiments.weighting.base.WeightingRule")
    return cls


def _check_signature(rule: str, cls: type, options: dict[str, Any]) -> None:
    parameters = inspect.signature(cls).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    allowed = [
        n for n, p in parameters.items() if n not in ("num_levels", "seed") and p.kind is not p.VAR_KEYWORD
    ]
    for key in options:
        if key not in allowed and not takes_any:
            raise OptionError(f"{key}: rule '{rule}' has no such option; {did_you_mean(key, allowed)}")
    for key in allowed:
        if parameters[key].default is inspect.Parameter.empty and key not in options:
            raise OptionError(f"{key}: rule '{rule}' needs this option")
