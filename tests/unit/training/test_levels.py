"""The level sizes that the error analysis reads from a run's config page, for the shipped recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.common.config_text import read_config
from experiments.recipes import loading as recipes
from experiments.reporting.breakdown.level_ranges import find_levels
from experiments.training.config.builder import build_config

FINER, COARSER = ["P3", "P4", "P5", "P6", "P7"], ["P2", "P3", "P4", "P5"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "profile", "levels", "border"),
    [  # the border between the two finest levels, by hand
        ("retinanet-r50", None, FINER, 4 * 8 * 2 ** (5 / 6)),  # anchors of 32 to 50.8 px, the next from 64 px
        ("retinanet-r50-rlo", "tiny", FINER, 2 * 8 * 2 ** (5 / 6)),
        ("atss-r50", None, FINER, 64 * 2**0.5),  # one anchor of 64 px, the next of 128 px
        ("fcos-r50", None, FINER, 64),  # FCOSHead's own ranges, which its config does not name
        ("fcos-r50-rlo", "tiny", FINER, 16),
        ("faster-rcnn-r50", None, COARSER, 112),  # RoIs of up to twice 56 px
        ("faster-rcnn-r50-rlo", "tiny", COARSER, 28),
        ("foveabox-r50", None, FINER, 64),
    ],
)
def test_level_sizes_are_those_of_the_shipped_detectors(
    name: str, profile: str | None, levels: list[str], border: float, tmp_path: Path
):
    recipe = recipes.load_recipe(name, profile)
    page = tmp_path / "config.py"
    page.write_text(build_config(recipe, ["cat"], Path("/nowhere"), tmp_path).pretty_text)
    found = find_levels(read_config(page), recipe.weighting.get("where"))
    assert list(found.ranges) == levels
    assert found.ranges[levels[0]][1] == pytest.approx(border)
    assert found.resize.scale == ((160, 160) if profile else (1333, 800))
