"""Images of `msdet predict`: files, folders, or images of a run's validation set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.common.errors import UserError, did_you_mean
from experiments.data.find import check_resizable
from experiments.data.ground_truth import GroundTruth
from experiments.data.image_files import decode, for_all
from experiments.data.readers import Box, Image
from experiments.recipes import loading as recipes
from experiments.runs.run_folder import RunFolder

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Chosen:
    """One image.

    Attributes:
        id, place, truth, whole_set: Of a validation image: its id, its index, its objects, and the files of the
            whole set; None for other images.
    """

    path: Path
    id: int | str | None = None
    place: int | None = None
    truth: list[Box] | None = None
    whole_set: list[Path] | None = None


def chosen_images(
    run: RunFolder,
    given: Sequence[Path],
    val: int | None,
    seed: int,
    val_ids: str | None,
    data_root: Path | None,
) -> list[Chosen]:
    """Return the requested images, readable and without duplicates.

    Args:
        run: Its validation set provides the images of `val` and `val_ids`, and the ground truth of files in it.

    Raises:
        UserError: No image is named, or one is missing, unreadable, or not in the validation set.
    """
    from experiments.reporting.breakdown.validation_set import truth_of

    if not given and val is None and val_ids is None:
        raise UserError("no image is named: give IMAGE, --val or --val-ids", "msdet predict RUN --val 6")
    files = [path for one in given for path in _files(one)]
    try:
        truth = truth_of(run, data_root)
    except UserError:
        if val is not None or val_ids is not None:
            raise
        truth = GroundTruth([], [], {}, "")  # without the run's data there is no ground truth
    whole = [image.path for image in truth.images]
    places = {path.resolve(): place for place, path in enumerate(whole)}
    wanted = list(_of_val(truth, val, seed, val_ids))
    chosen = [_chosen(truth.images[i], i, whole) for i in wanted]
    for path in files:
        place = places.get(path.resolve())
        chosen.append(Chosen(path) if place is None else _chosen(truth.images[place], place, whole))
    chosen = list({image.path.resolve(): image for image in chosen}.values())
    scale = recipes.load_recipe(str(run.recipe)).image_size
    for image, decoded in zip(chosen, for_all(decode, [image.path for image in chosen])):
        if decoded.size is None:
            raise UserError(f"image {image.path}: {decoded.fault}", "name files that are images")
        check_resizable(image.path, decoded.size, scale)
    return chosen


def _files(path: Path) -> Iterator[Path]:
    """Yield the file, or the folder's images: by suffix, and other files by content."""
    import cv2

    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        found = [file for file in files if file.suffix.lower() in SUFFIXES or cv2.haveImageReader(str(file))]
        if not found:
            raise UserError(f"folder {path} holds no images", "name another folder, or image files")
        yield from found
    else:
        yield path


def _chosen(image: Image, place: int, whole: list[Path]) -> Chosen:
    return Chosen(image.path, image.id, place, image.boxes, whole)


def _of_val(truth: GroundTruth, val: int | None, seed: int, val_ids: str | None) -> Iterator[int]:
    """Yield indices in the validation set."""
    from experiments.reporting.breakdown.validation_set import random_places

    places = {str(image.id): place for place, image in enumerate(truth.images)}
    for name in (val_ids or "").split(",") if val_ids is not None else ():
        if name.strip() not in places:
            raise UserError(
                f"--val-ids: '{name.strip()}' is not in the validation set; {did_you_mean(name.strip(), places)}",
                "--val 6 chooses at random",
            )
        yield places[name.strip()]
    if val is not None:
        yield from random_places(len(truth.images), val, seed)
