"""`msdet plot --curves`: what is drawn equals the numbers in the run folders, config by config."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from experiments.common.errors import UserError
from experiments.reporting.figures import curves

from .conftest import MakeRun
from .test_figures import lines_of, typed, unrendered, write_trace

__all__ = ["unrendered"]  # a fixture


def recorded_run(
    make_run: MakeRun, recipe: str, seed: int, aps: Sequence[float], scale: float, sets: tuple[str, ...] = ()
) -> Path:
    """Makes a run with evaluations at 10, 20, ..., and losses of `scale` at each interval, twice that at P4."""
    folder = make_run(recipe, seed, profile="tiny", sets=sets).path
    write_trace(folder, len(aps), lambda t, k: {"loss": scale * (k + 1) / t})
    rows = [f"{10 * t},{t},{ap},{ap + 20}" for t, ap in enumerate(aps, 1)]
    (folder / "metrics.csv").write_text("\n".join(["iteration,epoch,AP,AP50", *rows]) + "\n")
    return folder


def test_curves_are_loss_and_ap_of_each_config_mean_and_band_over_its_seeds(make_run):
    aps = {0: [10.0, 20.0, 30.0], 1: [14.0, 22.0], 2: [15.0, 27.0, 34.0]}  # seed 1 is at work
    one = [
        recorded_run(make_run, "retinanet-r50-rlo", seed, values, 1 + seed) for seed, values in aps.items()
    ]
    two = [recorded_run(make_run, "retinanet-r50-rlo", 0, [5.0, 6.0], 2.0, ("weighting.alpha=5",))]
    three = [recorded_run(make_run, "retinanet-r50", 0, [7.0, 8.0], 4.0)]
    with open(one[0] / "metrics.csv", "a", encoding="utf-8") as stream:
        stream.write("40,4,99.0")  # cut short
    problems: list[str] = []
    configs = (one, two, three)
    trainings = [
        curves.read_training(folders, label, problems)
        for folders, label in zip(configs, curves.make_labels(configs))
    ]
    assert problems == [f"{one[0] / 'metrics.csv'}: 1 line cannot be used (cut short or broken)."]
    figure, shown = curves.draw_curves(trainings)
    assert shown == ["loss", "AP"]
    loss, ap = (lines_of(axes) for axes in figure.axes)
    assert list(ap) == ["retinanet-r50-rlo", "retinanet-r50-rlo, weighting.alpha: 5 (10)", "retinanet-r50"]
    expected = [statistics.fmean([10, 14, 15]), statistics.fmean([20, 22, 27]), statistics.fmean([30, 34])]
    np.testing.assert_allclose(ap["retinanet-r50-rlo"], [[10, 20, 30], expected])
    np.testing.assert_allclose(ap["retinanet-r50"], [[10, 20], [7, 8]])
    np.testing.assert_allclose(loss["retinanet-r50"], [[10, 20], [12, 6]])  # 4 of P3 and 8 of P4
    np.testing.assert_allclose(loss["retinanet-r50-rlo"][1], [6, 3, 2 * 3 / 3])
    (band,) = figure.axes[1].collections  # the other configs have one seed
    at_20 = band.get_paths()[0].vertices
    at_20 = sorted(set(np.round(at_20[at_20[:, 0] == 20][:, 1], 9)))
    spread = statistics.stdev([20, 22, 27])
    assert at_20 == pytest.approx([expected[1] - spread, expected[1] + spread])


def test_voc_map_never_stands_under_ap(make_run):
    one = recorded_run(make_run, "retinanet-r50", 0, [7.0, 8.0], 4.0)
    two = recorded_run(make_run, "retinanet-r50-rlo", 0, [7.0, 8.0], 4.0)
    (two / "metrics.csv").write_text("iteration,epoch,mAP\n10,1,70\n20,2,75\n")
    trainings = [curves.read_training([run], run.parts[-3], []) for run in (one, two)]
    figure, shown = curves.draw_curves(trainings)
    assert shown == ["loss", "AP", "mAP"]
    assert [list(lines_of(axes)) for axes in figure.axes[1:]] == [["retinanet-r50"], ["retinanet-r50-rlo"]]


def test_plot_curves_draws_one_figure_and_names_the_band(results, make_run, tmp_path, unrendered):
    for seed in range(2):
        recorded_run(make_run, "retinanet-r50", seed, [7.0, 8.0 + seed], 4.0)
    recorded_run(make_run, "retinanet-r50-rlo", 0, [7.0, 8.0], 4.0)
    out = tmp_path / "out"
    words = ["--curves", "--results-dir", str(results), "--out", str(out)]
    told = typed("retinanet-r50", "retinanet-r50-rlo", *words)
    assert told.exit_code == 0, told.output
    assert sorted(path.name for path in out.iterdir()) == ["curves.png", "curves.svg"]
    caption = " ".join(told.stdout.split())
    assert (
        "bands: ± one standard deviation" in caption
        and "alpha 10; profile tiny on shapes), seeds 0, 1" in caption
    )
    assert "bands" not in typed("retinanet-r50-rlo", *words).stdout
    make_run("retinanet-r50-avw", 0, profile="tiny")
    error = typed("retinanet-r50-avw", *words).exception
    assert isinstance(error, UserError) and "no trace.csv" in error.message
