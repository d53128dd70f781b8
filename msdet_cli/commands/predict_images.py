"""Images of `msdet predict`: files, folders, or images of a run's validation set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.common.errors import UserError, did_you_mean
from experiments.data.find import check_resizable
from experiments.data.ground_truth import GroundTruth
from experiments.data.image_files import decode, map_files
from experiments.data.readers import Box
from experiments.recipes import loading as recipes
from experiments.runs.run_folder import RunFolder

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class ChosenImage:
    """One image; of a validation image its index in the set, its id and its objects, too."""

    path: Path
    place: int | None = None
    id: int | str | None = None
    truth: list[Box] | None = None


def choose_images(
    run: RunFolder,
    given: Sequence[Path],
    val: int | None,
    seed: int,
    val_ids: str | None,
    data_root: Path | None,
) -> tuple[list[ChosenImage], list[Path]]:
    """Return the requested images, readable and without duplicates, and the files of the run's validation set.

    Args:
        run: Its validation set provides the images of `val` and `val_ids`, and the ground truth of files in it.

    Raises:
        UserError: No image is named, or one is missing, unreadable, or not in the validation set.
    """
    from experiments.reporting.breakdown.run_breakdown import load_truth

    if not given and val is None and val_ids is None:
        raise UserError("no image is named: give IMAGE, --val or --val-ids", "msdet predict RUN --val 6")
    files = [path for one in given for path in _list_files(one)]
    try:
        truth = load_truth(run, data_root)
    except UserError:
        if val is not None or val_ids is not None:
            raise
        truth = GroundTruth([], [], {}, "")  # without the run's data there is no ground truth
    own = [ChosenImage(image.path, i, image.id, image.boxes) for i, image in enumerate(truth.images)]
    by_path = {image.path.resolve(): image for image in own}
    wanted = [own[place] for place in _places(truth, val, seed, val_ids)]
    wanted += [by_path.get(path.resolve(), ChosenImage(path)) for path in files]
    chosen = list({image.path.resolve(): image for image in wanted}.values())
    scale = recipes.load_recipe(str(run.recipe)).image_size
    for image, decoded in zip(chosen, map_files(decode, [image.path for image in chosen])):
        if decoded.size is None:
            raise UserError(f"image {image.path}: {decoded.fault}", "name files that are images")
        check_resizable(image.path, decoded.size, scale)
    return chosen, [image.path for image in own]


def _list_files(path: Path) -> Iterator[Path]:
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


def _places(truth: GroundTruth, val: int | None, seed: int, val_ids: str | None) -> Iterator[int]:
    """Yield indices in the validation set."""
    from experiments.reporting.breakdown.image_drawing import sample_places

    places = {str(image.id): place for place, image in enumerate(truth.images)}
    for name in (val_ids or "").split(",") if val_ids is not None else ():
        if name.strip() not in places:
            raise UserError(
                f"--val-ids: '{name.strip()}' is not in the validation set; {did_you_mean(name.strip(), places)}",
                "--val 6 chooses at random",
            )
        yield places[name.strip()]
    if val is not None:
        yield from sample_places(len(truth.images), val, seed)
