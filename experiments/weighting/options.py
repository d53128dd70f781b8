"""What each built-in rule can be told, and what is allowed: the one place for recipes and rules. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from experiments.common.errors import did_you_mean

Action = Literal["variance", "smallest", "largest", "uniform"]
ACTIONS: tuple[Action, ...] = ("variance", "smallest", "largest", "uniform")


class OptionError(ValueError):
    """A rule, or an option of one, that is not allowed; the message begins with the option's name."""


def _without_repeats(actions: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(actions)) != len(actions):
        raise ValueError("an action is named twice")
    return tuple(a for a in ACTIONS if a in actions)  # a0..a3, whatever order was given


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 < bounds[0] < bounds[1] < 1:
        raise ValueError("the bounds must satisfy 0 < lower < upper < 1")
    return bounds


class UniformOptions(BaseModel):
    """Options of every rule: they define the interval, which is also the unit of the trace."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    alpha: Annotated[int, Field(ge=2, description="iterations per interval")] = 100
    epsilon: Annotated[float, Field(gt=0, description="in the rate of decrease, Eq 4")] = 1e-5


class StaticOptions(UniformOptions):
    """Options of fixed weights."""

    weights: Annotated[
        tuple[Annotated[float, Field(ge=0)], ...],
        Field(min_length=1, description="one fixed weight per level, finest first"),
    ]


class AvwOptions(UniformOptions):
    """Options of Adaptive Variance Weighting (Section 3.2)."""

    n: Annotated[int, Field(ge=1, description="levels whose loss is enhanced")] = 2
    amplification: Annotated[
        tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]],
        Field(description="factor of the first selected level, and of the others"),
    ] = (1.5, 1.0)


class RloOptions(AvwOptions):
    """Options of Reinforcement Learning Optimization (Section 3.3)."""

    gamma: Annotated[float, Field(ge=0, description="reward and punishment step")] = 0.01
    beta: Annotated[
        tuple[float, float],
        AfterValidator(_ordered),
        Field(description="bounds of the probability that is rewarded or punished"),
    ] = (0.1, 0.9)
    actions: Annotated[
        tuple[Action, ...],
        Field(min_length=1, description="what the policy may choose from"),
        AfterValidator(_without_repeats),
    ] = ACTIONS


OPTIONS: dict[str, type[UniformOptions]] = {
    "uniform": UniformOptions,
    "static": StaticOptions,
    "avw": AvwOptions,
    "rlo": RloOptions,
    "random": UniformOptions,
    "dwa": UniformOptions,
    "uncertainty": UniformOptions,
}


FIXED = ("uniform", "static", "random")  # rules that follow nothing


def is_adaptive(weighting: Mapping[str, Any]) -> bool:
    """Return whether a recipe's weights follow its losses: RLO with gamma = 0 learns nothing."""
    if weighting.get("rule") == "rlo":
        return weighting.get("gamma") != 0
    return weighting.get("rule") not in FIXED


def is_users_own(rule: str) -> bool:
    """Return whether `rule` names a user's class, `module:Class`, rather than a built-in rule."""
    module, colon, name = rule.partition(":")
    return bool(colon and name.isidentifier() and all(p.isidentifier() for p in module.split(".")))


def may_have_parameters(rule: str) -> bool:
    """Return whether a rule may be learnable: what a user's own is shows only when it is built."""
    return rule == "uncertainty" or is_users_own(rule)


def check_options(rule: str, options: dict[str, Any], num_levels: int | None = None) -> dict[str, Any]:
    """Check the options of a rule and fill in the defaults.

    Args:
        rule: A built-in rule, or `module:Class` of a user's own. The latter's options are returned as they
            are: only its signature knows them, and reading that means importing it.
        options: Option name to value.
        num_levels: K, where it is known; `n` and the length of `weights` are then checked against it.

    Returns:
        All options of the rule, in plain Python types.

    Raises:
        OptionError: One line naming the option, the value and what is allowed.
    """
    if is_users_own(rule):
        return dict(options)
    if rule not in OPTIONS:
        raise OptionError(f"rule: '{rule}' is unknown; {did_you_mean(rule, [*OPTIONS, 'module:Class'])}")
    schema = OPTIONS[rule]
    for key in options:
        if key not in schema.model_fields:
            raise OptionError(
                f"{key}: rule '{rule}' has no such option; {did_you_mean(key, schema.model_fields)}"
            )
    try:
        checked = schema.model_validate(options).model_dump()
    except ValidationError as error:
        raise OptionError(_one_line(error, options)) from None
    if num_levels is not None:
        _check_levels(checked, num_levels)
    return checked


def _check_levels(options: dict[str, Any], num_levels: int) -> None:
    if options.get("n", 1) > num_levels:
        raise OptionError(
            f"n: {options['n']} is not allowed; the detector has {num_levels} levels, so 1 to {num_levels}"
        )
    weights = options.get("weights")
    if weights is not None and len(weights) != num_levels:
        raise OptionError(
            f"weights: {list(weights)} has {len(weights)} values; the detector has {num_levels} levels"
        )


def _one_line(error: ValidationError, options: dict[str, Any]) -> str:
    first = error.errors()[0]
    option = str(first["loc"][0])
    if first["type"] == "missing" and len(first["loc"]) == 1:
        return f"{option}: is missing"
    reason = first["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    if first["type"] == "too_short":
        reason = f"needs at least {first['ctx']['min_length']}"
    value = options[option]
    if len(first["loc"]) > 1 and first["input"] is not value:
        return f"{option}: {value!r} is not allowed: {reason}, got {first['input']!r}"
    return f"{option}: {value!r} is not allowed: {reason}"
