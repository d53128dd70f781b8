"""`msdet predict`: draw a run's detections on images, as the paper's Figure 3 does."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from experiments.common.errors import UserError
from experiments.common.files import unique_name
from experiments.data.readers import Box
from experiments.runs.lookup import resolve, results_dir
from experiments.runs.run_folder import RunFolder
from msdet_cli.commands.predict_images import Chosen, chosen_images
from msdet_cli.console.text_lines import print_lines
from msdet_cli.options import RESULTS, DataRootOpt, JsonOpt, ResultsOpt, RunArg

if TYPE_CHECKING:
    from experiments.training.prediction import Detection

COLUMN_WIDTH_IN = 3.2


@dataclass
class Predicted:
    """One image, the detections of each run on it, and the drawing."""

    image: Chosen
    found: list[list[Detection]] = field(default_factory=list)
    drawn: Path | None = None


def predict(
    run: RunArg,
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="RUN", help="A baseline, drawn in blue beside RUN in red."),
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
    folder = results_dir(results)
    runs = [resolve(reference, folder) for reference in ([against] if against else []) + [run]]
    for one in runs:
        if one.last_checkpoint() is None:
            raise UserError(f"run {one.name} has no checkpoint", "msdet runs")
    chosen = chosen_images(runs[-1], images or [], val, seed, val_ids, data_root)
    predicted = [Predicted(image) for image in chosen]
    for one in runs:
        for entry, found in zip(predicted, _detect(one, runs[-1], chosen, data_root)):
            entry.found.append(found)
    _draw(predicted, runs, threshold, out)
    if as_json:
        print(json.dumps(_as_json(predicted, runs, threshold), indent=2))
    else:
        _print(predicted, runs, threshold, out)


def _detect(
    run: RunFolder, main: RunFolder, chosen: Sequence[Chosen], data_root: Path | None
) -> Iterator[list[Detection]]:
    """Yield the detections per image; validation images take the path of the run's evaluation."""
    from experiments.training.prediction import Predictor

    predictor = Predictor(run)
    own = _validation_files(run, main, chosen, data_root)
    for image in _with_progress(chosen, run.name):
        if image.place is not None and own is not None:
            yield from predictor.detect_val(own, [image.place])
        else:
            yield from predictor.detect([image.path])


def _validation_files(
    run: RunFolder, main: RunFolder, chosen: Sequence[Chosen], data_root: Path | None
) -> list[Path] | None:
    """Return the validation set's files if an image is in it and the run used it, too."""
    whole = next((image.whole_set for image in chosen if image.whole_set), None)
    same = run.read().dataset.get("fingerprint") == main.read().dataset.get("fingerprint")
    return whole if same else None


def _with_progress(chosen: Sequence[Chosen], title: str) -> Iterator[Chosen]:
    """Yield the images; show progress on standard error, as a bar or as lines."""
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=len(chosen))
        for number, image in enumerate(chosen, start=1):
            yield image
            progress.update(task, completed=number)
            if not console.is_terminal and number % 50 == 0:
                print(f"{title}: {number} of {len(chosen)} images", file=sys.stderr)


def _draw(predicted: Sequence[Predicted], runs: Sequence[RunFolder], threshold: float, out: Path) -> None:
    """Write a PNG per image, named after it."""
    from experiments.reporting.breakdown.image_drawing import read_image, side_by_side

    titles = _titles(runs)
    taken: set[str] = set()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for entry in predicted:
            name = f"{unique_name(entry.image.path.stem, taken)}.png"
            panels = _panels(entry, runs, titles, threshold)
            figure = side_by_side([(read_image(entry.image.path), panels)], COLUMN_WIDTH_IN * len(panels))
            figure.savefig(out / name)
            entry.drawn = out / name
    except OSError as error:
        raise UserError(
            f"--out: {out} cannot be written: {error.strerror or error}", "name another folder"
        ) from None


def _panels(
    entry: Predicted, runs: Sequence[RunFolder], titles: Sequence[str], threshold: float
) -> list[Any]:
    from experiments.reporting.breakdown.image_drawing import BASELINE, TRUTH, WEIGHTED, Panel, labelled

    panels = []
    if entry.image.truth is not None:
        boxes = [labelled(box.xywh, box.category) for box in entry.image.truth if not box.is_ignored]
        panels.append(Panel("ground truth", TRUTH, boxes))
    inks = [BASELINE, WEIGHTED] if len(runs) == 2 else [WEIGHTED]
    for title, ink, found in zip(titles, inks, entry.found):
        drawn = [labelled(d.box, d.category, d.score) for d in found if d.score >= threshold]
        panels.append(Panel(title, ink, drawn))
    return panels


def _titles(runs: Sequence[RunFolder]) -> list[str]:
    """Return recipe and seed per run, with the config hash if they are not unique."""
    short = [f"{run.path.parts[-3]}, {run.path.parts[-1]}" for run in runs]
    return short if len(set(short)) == len(runs) else [run.name for run in runs]


def _print(predicted: Sequence[Predicted], runs: Sequence[RunFolder], threshold: float, out: Path) -> None:
    """Print a line per image with the objects of each class: ground truth, then each run."""
    console = Console(highlight=False, markup=False)
    rows = []
    for entry in predicted:
        truth = entry.image.truth
        row = [
            str(entry.image.path),
            "" if truth is None else _counts(box.category for box in truth if not box.is_ignored),
        ]
        rows.append(
            row + [_counts(d.category for d in found if d.score >= threshold) for found in entry.found]
        )
    print_lines(console, ["image", "ground truth", *_titles(runs)], rows)
    console.print(f"{len(predicted)} images, score {threshold:g} or more, drawn in {out}/", soft_wrap=True)


def _counts(categories: Iterable[str]) -> str:
    """Return `5: 3 disc, 2 star`, the most frequent class first."""
    counted = Counter(categories)
    total = sum(counted.values())
    return f"{total}: " + ", ".join(f"{n} {name}" for name, n in counted.most_common()) if total else "none"


def _as_json(predicted: Sequence[Predicted], runs: Sequence[RunFolder], threshold: float) -> dict[str, Any]:
    return {
        "runs": [{"run": str(run.path), "checkpoint": str(run.last_checkpoint())} for run in runs],
        "threshold": threshold,
        "images": [
            {
                "image": str(entry.image.path),
                "id": entry.image.id,
                "drawn": str(entry.drawn),
                "ground_truth": None
                if entry.image.truth is None
                else [_box(box) for box in entry.image.truth],
                "detections": {
                    str(run.path): [_box(d) for d in found] for run, found in zip(runs, entry.found)
                },
            }
            for entry in predicted
        ],
    }


def _box(one: Detection | Box) -> dict[str, Any]:
    if isinstance(one, Box):
        return {"class": one.category, "ignored": one.is_ignored, "box": list(one.xywh)}
    return {"class": one.category, "score": one.score, "box": list(one.box)}
