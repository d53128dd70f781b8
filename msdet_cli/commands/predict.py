"""`msdet predict`: draw a run's detections on images, as the paper's Figure 3 does."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from experiments.common.errors import UserError, did_you_mean
from experiments.common.files import make_unique_name
from experiments.data.find import check_resizable
from experiments.data.ground_truth import GroundTruth
from experiments.data.image_files import decode, map_files
from experiments.data.readers import Box
from experiments.recipes.loading import load_recipe
from experiments.runs.lookup import resolve
from experiments.runs.run_folder import RunFolder
from msdet_cli.completion import complete_runs
from msdet_cli.console.file_output import make_output_folder, name_folder_on_error
from msdet_cli.console.output import print_json, print_lines
from msdet_cli.options import RESULTS, DataRootOpt, JsonOpt, ResultsOpt, RunArg, argument, option

if TYPE_CHECKING:
    from experiments.training.prediction import Detection

COLUMN_WIDTH_IN = 3.2
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class ChosenImage:
    """One image; of a validation image its index in the set, its id and its objects, too."""

    path: Path
    place: int | None = None
    id: int | str | None = None
    truth: list[Box] | None = None


@dataclass
class Predicted:
    """One image, the detections of each run on it, and where they are drawn."""

    image: ChosenImage
    found: list[list[Detection]]
    drawing: Path

    def counts(self, threshold: float) -> list[str]:
        """Return the objects of each class: ground truth, then what each run found."""
        truth = self.image.truth
        row = ["" if truth is None else _count(box.category for box in truth if not box.is_ignored)]
        return row + [_count(d.category for d in found if d.score >= threshold) for found in self.found]

    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Return all detections of the runs with these names, whatever their score."""
        image = self.image
        truth = image.truth and [
            {"class": box.category, "ignored": box.is_ignored, "box": list(box.xywh)} for box in image.truth
        ]
        detections = {
            name: [{"class": d.category, "score": d.score, "box": list(d.box)} for d in found]
            for name, found in zip(names, self.found)
        }
        return {
            "image": str(image.path),
            "id": image.id,
            "drawn": str(self.drawing),
            "ground_truth": truth,
            "detections": detections,
        }


def predict(
    run: RunArg,
    images: Annotated[list[Path] | None, argument("IMAGE...", "Image files, or folders of them.")] = None,
    against: Annotated[
        str | None, option("--against RUN", "A baseline, drawn in blue beside RUN in red.", complete_runs)
    ] = None,
    val: Annotated[
        int | None, option("--val COUNT", "Number of random images of RUN's validation set.", min=1)
    ] = None,
    seed: Annotated[int, option("--seed K", "Seed of --val.", min=0)] = 0,
    val_ids: Annotated[str | None, option("--val-ids ID,ID", "Images of the validation set.")] = None,
    threshold: Annotated[
        float, option("--threshold SCORE", "Minimum score to draw and count.", min=0, max=1)
    ] = 0.5,
    out: Annotated[Path, option("--out DIR", "Folder of the drawings.")] = Path("predictions"),
    data_root: DataRootOpt = None,
    results: ResultsOpt = RESULTS,
    as_json: JsonOpt = False,
) -> None:
    """Detect objects with a run's newest weights, and draw them.

    For images of the run's validation set the ground truth is drawn, too, in green, and the detections equal those
    of the run's evaluation. --json prints all detections, whatever the threshold: class, score, and box as x, y,
    width, height in pixels of the image.

    \b
    msdet predict retinanet-r50-rlo photo.jpg
    msdet predict retinanet-r50-rlo/1a2b3c4d/seed0 photos/ --threshold 0.3 --out drawn
    msdet predict retinanet-r50-rlo --against retinanet-r50 --val 6
    """
    runs = [resolve(reference, results) for reference in ([against] if against else []) + [run]]
    for one in runs:
        one.newest_checkpoint()
    chosen, whole_set = choose_images(runs[-1], images or [], val, seed, val_ids, data_root)
    make_output_folder(out)
    by_run = [list(_detect(one, runs[-1], chosen, whole_set)) for one in runs]
    titles, taken, predicted = _titles(runs), set[str](), []
    for image, *found in zip(chosen, *by_run):
        drawing = out / f"{make_unique_name(image.path.stem, taken)}.png"
        predicted.append(Predicted(image, found, drawing))
        with name_folder_on_error(out):
            _draw(predicted[-1], titles, threshold)
    if as_json:
        weights = [{"run": str(one.path), "checkpoint": str(one.last_checkpoint())} for one in runs]
        names = [str(one.path) for one in runs]
        images_json = [one.as_json(names) for one in predicted]
        print_json({"runs": weights, "threshold": threshold, "images": images_json})
        return
    rows = [[str(one.image.path), *one.counts(threshold)] for one in predicted]
    print_lines(Console(), ["image", "ground truth", *titles], rows)
    print(f"{len(chosen)} images, score {threshold:g} or more, drawn in {out}/")


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
    scale = load_recipe(str(run.recipe)).image_size
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
    for name in map(str.strip, val_ids.split(",") if val_ids is not None else ()):
        if name not in places:
            close = did_you_mean(name, places)
            raise UserError(
                f"--val-ids: '{name}' is not in the validation set; {close}", "--val 6 chooses at random"
            )
        yield places[name]
    if val is not None:
        yield from sample_places(len(truth.images), val, seed)


def _detect(
    run: RunFolder, main: RunFolder, chosen: Sequence[ChosenImage], whole_set: Sequence[Path]
) -> Iterator[list[Detection]]:
    """Yield the detections per image; images of the run's own validation set take the path of its evaluation."""
    from experiments.training.prediction import Predictor

    predictor = Predictor(run)
    is_own = run.read().dataset.get("fingerprint") == main.read().dataset.get("fingerprint")
    for image in _with_progress(chosen, run.name):
        if image.place is not None and is_own:
            yield predictor.detect_val(whole_set, image.place)
        else:
            yield predictor.detect(image.path)


def _with_progress(chosen: Sequence[ChosenImage], title: str) -> Iterator[ChosenImage]:
    """Yield the images; show progress on standard error, as a bar or as lines."""
    from rich.progress import track

    console = Console(stderr=True)
    shown = track(chosen, title, console=console, transient=True, disable=not console.is_terminal)
    for number, image in enumerate(shown, start=1):
        yield image
        if not console.is_terminal and number % 50 == 0:
            print(f"{title}: {number} of {len(chosen)} images", file=sys.stderr)


def _draw(one: Predicted, titles: Sequence[str], threshold: float) -> None:
    """Write the drawing: a panel with the ground truth, then one with the detections of each run."""
    from experiments.reporting.breakdown import image_drawing as drawing

    panels = []
    if one.image.truth is not None:
        boxes = [drawing.Labelled(box.xywh, box.category) for box in one.image.truth if not box.is_ignored]
        panels.append(drawing.Panel("ground truth", drawing.TRUTH, boxes))
    for title, ink, found in zip(titles, [drawing.BASELINE, drawing.WEIGHTED][-len(titles) :], one.found):
        shown = [drawing.Labelled(d.box, d.category, d.score) for d in found if d.score >= threshold]
        panels.append(drawing.Panel(title, ink, shown))
    image = drawing.read_image(one.image.path)
    drawing.draw_side_by_side([(image, panels)], COLUMN_WIDTH_IN * len(panels)).savefig(one.drawing)


def _titles(runs: Sequence[RunFolder]) -> list[str]:
    """Return recipe and seed per run, with the config hash if they are not unique."""
    short = [f"{run.path.parts[-3]}, {run.path.parts[-1]}" for run in runs]
    return short if len(set(short)) == len(runs) else [run.name for run in runs]


def _count(categories: Iterable[str]) -> str:
    """Return `5: 3 disc, 2 star`, the most frequent class first."""
    counted = Counter(categories)
    total = sum(counted.values())
    return f"{total}: " + ", ".join(f"{n} {name}" for name, n in counted.most_common()) if total else "none"
