"""Every recipe trained once under `tiny`; what each reached and how long it took is kept in `results/tiny.csv`."""

from __future__ import annotations

import pytest

from experiments.recipes.catalogue import find_shipped, list_pages
from experiments.runs.record import Record
from tests.end_to_end.conftest import Place
from tests.kept import RESULTS, keep_rows, short_commit

COLUMNS = ["recipe", "metric", "value", "seconds", "seconds_per_iteration", "iterations", "cpu_threads",
           "torch", "commit"]  # fmt: skip
RECIPES = [name for name, path in list_pages("recipe").items() if path.parent == find_shipped()]
UNTRAINED = ["retinanet-r50", "retinanet-r50-guided", "fcos-r50", "faster-rcnn-r50", "fsaf-r50", "foveabox-r50",
             "atss-r50", "retinanet-r50-voc", "faster-rcnn-r50-voc"]  # fmt: skip
CHANCE, LEARNT = 2.0, 15.0  # what an untrained model stays below, and a trained one reaches
MAKE_RUN = ("retinanet-r50", "retinanet-r50-rlo")  # what a newcomer sees first: useful and unsaturated


def _trained(place: Place, recipe: str, *sets: str) -> tuple[str, float, Record]:
    options = [word for key in sets for word in ("--set", key)]
    said = place.msdet("run", recipe, "-p", "tiny", *options, timeout=3000)
    assert said.returncode == 0, said.stdout + said.stderr
    record = place.only_run().read()
    metric = "AP" if "AP" in record.metrics else "mAP"
    return metric, record.metrics[metric], record


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_learns_under_tiny(recipe: str, place: Place) -> None:
    metric, value, record = _trained(place, recipe)
    _keep(recipe, metric, value, record)
    assert 35 <= value <= 60 if recipe in MAKE_RUN else value > LEARNT


@pytest.mark.slow
@pytest.mark.parametrize("recipe", UNTRAINED)
def test_an_untrained_model_finds_next_to_nothing(recipe: str, place: Place) -> None:
    _, value, _ = _trained(place, recipe, "schedule.iterations=1", "schedule.lr=1e-9")
    assert value < CHANCE


def _keep(recipe: str, metric: str, value: float, record: Record) -> None:
    """Puts the recipe's row in the place of an older one."""
    environment = record.environment
    row = {
        "recipe": recipe,
        "metric": metric,
        "value": f"{value:.1f}",
        "seconds": f"{record.timings['total_s']:.0f}",
        "seconds_per_iteration": f"{record.timings['seconds_per_iteration']:.2f}",
        "iterations": record.iterations,
        "cpu_threads": environment["cpu_threads"],
        "torch": environment["packages"]["torch"],
        "commit": short_commit(record.git),
    }
    keep_rows(RESULTS / "tiny.csv", COLUMNS, "recipe", [row])
