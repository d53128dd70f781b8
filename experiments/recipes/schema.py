"""The schema of a resolved recipe. No torch."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, JsonValue, field_validator, model_validator

from experiments.common.errors import UserError, did_you_mean
from experiments.data.spec import DatasetSpec
from experiments.weighting.options import OPTIONS, check_options

# The weighted head of a two-stage detector, the default first: an option of the detector, not of a rule.
WHERE = ("roi", "rpn", "both")

AMP_DTYPES = ("bf16", "fp16")

MAX_SECTION_CHARS = 100_000  # of `set` and `weighting` as JSON: MMEngine takes minutes to write more

AtLeastOne = Annotated[int, Field(ge=1)]


class Schedule(BaseModel, extra="forbid", strict=True, allow_inf_nan=False):
    """Length, batch and learning rate. The length is in epochs or in iterations (optimizer steps)."""

    epochs: AtLeastOne | None = None
    iterations: AtLeastOne | None = None
    lr: Annotated[float, Field(gt=0)]  # for the whole batch; never rescaled
    milestones: list[AtLeastOne] = []  # epochs after which the learning rate drops tenfold
    decay: Literal["step", "cosine"] = "step"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    warmup: Annotated[int, Field(ge=0)] | None = None  # iterations; None: that of the model's config
    gpus: AtLeastOne = 1
    images_per_gpu: AtLeastOne
    eval_every: AtLeastOne | None = 1  # epochs; None: at the end only

    @model_validator(mode="after")
    def _fits_together(self) -> Schedule:
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("give its length as either epochs or iterations")
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones: {self.milestones} is not allowed: they must increase")
        if self.milestones and (self.decay != "step" or self.epochs is None):
            raise ValueError("milestones: they need `decay: step` and a length in epochs; otherwise write []")
        return self

    @property
    def batch(self) -> int:
        """Images of one optimizer step, over all workers."""
        return self.gpus * self.images_per_gpu

    def micro_batch(self, workers: int) -> int:
        """Return the images per worker and forward pass; the rest of the batch is accumulated.

        It is the largest divisor of `images_per_gpu` with which the workers share the batch evenly.

        Raises:
            UserError: There is none.
        """
        for images in range(self.images_per_gpu, 0, -1):
            if self.images_per_gpu % images == 0 and (self.batch // images) % workers == 0:
                return images
        raise UserError(
            f"{workers} workers cannot share a batch of {self.gpus} x {self.images_per_gpu} images evenly",
            f"--gpus N with a divisor of {self.batch}, or --scale-lr to scale the batch and the learning rate",
        )


class Recipe(BaseModel, extra="forbid", strict=True):
    """A resolved recipe, with every value that defaults, profiles and other files gave."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]
    model: str  # mmdet:<path>.py, or the absolute path of a user's own config
    dataset: DatasetSpec
    image_size: Annotated[list[AtLeastOne], Field(min_length=2, max_length=2)] | None = None  # pixels
    schedule: Schedule
    # `rule` and all of its options; `where` only if given: detectors with one head have none
    weighting: dict[str, Any] = Field(default={}, validate_default=True)
    amp: Literal["bf16", "fp16"] | None = None  # mixed precision; None: float32
    set: dict[str, JsonValue] = {}  # MMEngine keys, dotted, general before specific
    imports: list[str] = []
    init_from: str | None = None
    checkpoint_every: AtLeastOne = 500  # iterations
    profile: str | None = None  # the one it was resolved with

    @field_validator("model")
    @classmethod
    def _is_a_config(cls, model: str) -> str:
        if not model.endswith(".py"):
            raise ValueError(
                f"{model!r} is not allowed: mmdet:<family>/<file>.py, or the path of a config.py"
            )
        return model

    @field_validator("weighting")
    @classmethod
    def _complete(cls, weighting: dict[str, Any]) -> dict[str, Any]:
        options = dict(weighting)
        rule, where = options.pop("rule", "uniform"), options.pop("where", None)
        if not isinstance(rule, str):
            raise ValueError(f"rule: {rule!r} is not allowed; {did_you_mean('', OPTIONS)}")
        if where not in (None, *WHERE):
            raise ValueError(f"where: {where!r} is not allowed: {', '.join(WHERE)}")
        chosen = {"rule": rule} if where is None else {"rule": rule, "where": where}
        chosen |= check_options(rule, options)
        try:
            text = json.dumps(chosen, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError("options must be numbers, text, lists or mappings") from None
        _check_length(text)
        return json.loads(text)  # tuples become lists

    @field_validator("set")
    @classmethod
    def _in_order(cls, keys: dict[str, JsonValue]) -> dict[str, JsonValue]:
        _check_length(json.dumps(keys))
        for key in keys:
            if not re.fullmatch(r"\+?[^.\s+]+(\.[^.\s]+)*", key):
                raise ValueError(f"{key!r} is not a dotted MMEngine key")
            if key.startswith("+") and key[1:] in keys:
                raise ValueError(f"{key[1:]!r} is given twice, with and without '+'")
        return {key: keys[key] for key in sorted(keys, key=_whole_and_type_first)}

    @field_validator("imports")
    @classmethod
    def _are_modules(cls, imports: list[str]) -> list[str]:
        for module in imports:
            if not all(part.isidentifier() for part in module.split(".")):
                raise ValueError(f"{module!r} is not the name of a Python module")
        return imports


def _check_length(text: str) -> None:
    if len(text) > MAX_SECTION_CHARS:
        raise ValueError(
            f"holds {len(text)} characters, aliases written out; at most {MAX_SECTION_CHARS} are allowed"
        )


def _whole_and_type_first(key: str) -> list[tuple[bool, str]]:
    """Return a sort key: a node comes before its parts, and `type` before keys that may depend on that class."""
    return [(part != "type", part) for part in key.lstrip("+").split(".")]
