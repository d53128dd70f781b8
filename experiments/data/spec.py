"""The description of a data set: a page of YAML, or the same mapping inside a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from experiments.data.problems import has_control_characters


def _relative(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ValueError("must be a path below the data set's root")
    return path


class SplitPart(BaseModel, extra="forbid"):
    """One annotation file and its images, as paths below the root.

    COCO format: `annotations` is the instances JSON, `images` the folder that its file names start from.
    VOC format: `annotations` is the list of image ids (`ImageSets/Main/train.txt`), `images` the folder
    that holds `JPEGImages/` and `Annotations/`.
    """

    annotations: Annotated[str, Field(min_length=1)]
    images: str = ""

    _inside = field_validator("annotations", "images")(_relative)


class DatasetSpec(BaseModel, extra="forbid"):
    """A data set to train on and evaluate.

    Attributes:
        root: Its folder, absolute or relative to the working directory; `--data-root` replaces it.
        classes: Those to train; [] takes all of the annotations.
        generate: The generator's parameters; for built-in data only.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    format: Literal["coco", "voc"]
    root: Annotated[str, Field(min_length=1)]
    splits: dict[Literal["train", "val"], list[SplitPart]]
    classes: list[str] = []
    repeat: Annotated[int, Field(ge=1, description="how often an epoch goes over the training set")] = 1
    min_box_size: Annotated[
        int, Field(ge=1, description="narrower or lower boxes (pixels) are left out of training")
    ] = 1
    min_image_size: Annotated[
        int, Field(ge=0, description="images with a shorter side (pixels) are left out of training")
    ] = 0
    generate: dict[str, Any] | None = None

    @field_validator("splits", mode="before")
    @classmethod
    def _wrap_single_part(cls, splits: Any) -> Any:
        if isinstance(splits, dict):
            return {k: [v] if isinstance(v, dict) else v for k, v in splits.items()}
        return splits

    @field_validator("classes")
    @classmethod
    def _stripped(cls, classes: list[str]) -> list[str]:
        classes = [name.strip() for name in classes]
        if "" in classes:
            raise ValueError("a class has no name")
        if any(map(has_control_characters, classes)):
            raise ValueError("a class name holds control characters")
        return classes

    @model_validator(mode="after")
    def _both_splits(self) -> DatasetSpec:
        for split in ("train", "val"):
            if not self.splits.get(split):
                raise ValueError(f"splits.{split} is missing")
        for split, parts in self.splits.items():
            if self.format == "coco" and len(parts) > 1:
                raise ValueError(f"splits.{split}: COCO format takes one annotation file a split")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a class is named twice")
        return self
