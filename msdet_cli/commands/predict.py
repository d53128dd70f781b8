"""`msdet predict`: draw a run's detections on images, as the paper's Figure 3 does."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from experiments.common.files import make_unique_name
from experiments.runs.lookup import find_results_dir, resolve
from experiments.runs.run_folder import RunFolder
from msdet_cli.commands.predict_images import ChosenImage, choose_images
from msdet_cli.completion import complete_runs
from msdet_cli.console.file_output import make_output_folder, name_folder_on_error
from msdet_cli.console.text_lines import print_lines
from msdet_cli.options import RESULTS, DataRootOpt, JsonOpt, ResultsOpt, RunArg

if TYPE_CHECKING:
    from experiments.training.prediction import Detection

COLUMN_WIDTH_IN = 3.2


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
        truth = [
            {"class": box.category, "ignored": box.is_ignored, "box": list(box.xywh)}
            for box in self.image.truth or ()
        ]
        detections = {
            name: [{"class": d.category, "score": d.score, "box": list(d.box)} for d in found]
            for name, found in zip(names, self.found)
        }
        return {
            "image": str(self.image.path),
            "id": self.image.id,
            "drawn": str(self.drawing),
            "ground_truth": None if self.image.truth is None else truth,
            "detections": detections,
        }


def predict(
    run: RunArg,
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="RUN",
            help="A baseline, drawn in blue beside RUN in red.",
            autocompletion=complete_runs,
        ),
    ] = None,
    val: Annotated[
        int | None,
        typer.Option(
            "--val", metavar="COUNT", min=1, help="Number of random images of RUN's validation set."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="K", min=0, help="Seed of --val.")] = 0,
    val_ids: Annotated[
        str | None, typer.Option("--val-ids", metavar="ID,ID", help="Images of the validation set.")
    ] = None,
    threshold: Annotated[
        float,
        typer.Option("--threshold", metavar="SCORE", min=0, max=1, help="Minimum score to draw and count."),
    ] = 0.5,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the drawings.")] = Path(
        "predictions"
    ),
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
    folder = find_results_dir(results)
    runs = [resolve(reference, folder) for reference in ([against] if against else []) + [run]]
    for one in runs:
        one.newest_checkpoint()
    chosen, whole_set = choose_images(runs[-1], images or [], val, seed, val_ids, data_root)
    make_output_folder(out)
    by_run = [_detect(one, runs[-1], chosen, whole_set) for one in runs]
    titles, taken, predicted = _titles(runs), set[str](), []
    for image, *found in zip(chosen, *map(list, by_run)):
        drawing = out / f"{make_unique_name(image.path.stem, taken)}.png"
        predicted.append(Predicted(image, found, drawing))
        with name_folder_on_error(out):
            _draw(predicted[-1], titles, threshold)
    if as_json:
        weights = [{"run": str(one.path), "checkpoint": str(one.last_checkpoint())} for one in runs]
        names = [str(one.path) for one in runs]
        content = {
            "runs": weights,
            "threshold": threshold,
            "images": [one.as_json(names) for one in predicted],
        }
        print(json.dumps(content, indent=2))
        return
    rows = [[str(one.image.path), *one.counts(threshold)] for one in predicted]
    print_lines(Console(), ["image", "ground truth", *titles], rows)
    print(f"{len(chosen)} images, score {threshold:g} or more, drawn in {out}/")


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
