"""Figures: what is drawn equals the numbers in the run folders; what cannot be drawn is a sentence."""

from __future__ import annotations

import json
import re
import statistics
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import typer
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.stats import ttest_rel
from typer.testing import CliRunner, Result

from experiments.common.errors import UserError
from experiments.detection.level_weighting.trace import COLUMNS
from experiments.reporting import build_report, collect
from experiments.reporting.figures import (
    build_figure_sections,
    curves,
    draw_runs,
    forest,
    make_stem,
    policy,
    series,
    sweeps,
    timing,
)
from experiments.reporting.figures import traces as trace_files
from experiments.reporting.figures.style import DPI
from experiments.reporting.tables.report_model import MeasuredTable, Report
from msdet_cli.commands import plot

Cells = dict[str, Any]


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn but not written: that takes most of the time."""
    monkeypatch.setattr(
        Figure, "savefig", lambda self, file, **how: file.write(b"" if how["format"] == "png" else "<svg")
    )


def write_trace(
    folder: Path,
    intervals: int,
    cells: Callable[[int, int], Cells],
    names: Sequence[str] = ("P3", "P4"),
    head: str = "bbox_head",
    alpha: int = 10,
) -> Path:
    """Writes a run's trace: `cells(interval, level number)` gives what differs from an unweighted level's row."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [",".join(COLUMNS)] if not (folder / "trace.csv").exists() else []
    for interval in range(1, intervals + 1):
        for number, name in enumerate(names):
            row = {
                "interval": interval,
                "iteration": alpha * interval,
                "head": head,
                "level": name,
                "weight": 1.0,
            }
            row |= cells(interval, number)
            rows.append(",".join(str(row.get(column, "")) for column in COLUMNS))
    with open(folder / "trace.csv", "a", encoding="utf-8") as stream:
        stream.write("\n".join(rows) + "\n")
    return folder


def losses(scale: float) -> Callable[[int, int], Cells]:
    return lambda t, k: {"loss_cls": scale / t + k, "loss_bbox": scale * t, "iou": 0.1 * t if k == 0 else ""}


def policy_cells(actions: Sequence[str]) -> Callable[[int, int], Cells]:
    """Weights of 2 for the first level under every action but uniform; probabilities that follow the interval."""

    def cells(t: int, k: int) -> Cells:
        action = actions[t - 1]
        weight = 2.0 if action not in ("", "uniform") and k == 0 else 1.0
        row = {
            "weight": weight,
            "action": action,
            "reward": 1 if t % 2 else -1,
            "loss_cls": 1.0,
            "loss_bbox": 1.0,
        }
        return row | {
            "p_variance": 0.2 + 0.01 * t,
            "p_smallest": 0.3 - 0.01 * t,
            "p_largest": 0.25,
            "p_uniform": 0.25,
        }

    return cells


def lines_of(axes: Any) -> dict[str, np.ndarray]:
    return {line.get_label(): np.array(line.get_data()) for line in axes.lines if line.get_label()[0] != "_"}


def test_each_level_has_its_line_the_mean_over_seeds_and_a_band_of_one_standard_deviation(tmp_path):
    scales = {0: 1.0, 1: 3.0, 2: 3.5}
    runs = [write_trace(tmp_path / f"seed{seed}", 4, losses(scale)) for seed, scale in scales.items()]
    figure = curves.draw_levels(trace_files.read(runs))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Classification loss", "Regression loss", "Mean IoU of positives",
    ]  # fmt: skip
    lines = lines_of(figure.axes[0])
    assert list(lines) == ["P3", "P4"] == [text.get_text() for text in figure.legends[0].get_texts()]
    for number, level in enumerate(lines):
        expected = [statistics.fmean(s / t + number for s in scales.values()) for t in range(1, 5)]
        np.testing.assert_allclose(lines[level], [[10, 20, 30, 40], expected])
    colours = [to_hex(line.get_color()) for line in figure.axes[0].lines if line.get_label() in lines]
    assert colours == ["#0072b2", "#009e73"]  # blue, green: finest first, as in the paper's Fig 1
    band = figure.axes[1].collections[0].get_paths()[0].vertices
    at_40 = sorted(set(np.round(band[band[:, 0] == 40][:, 1], 9)))
    mean, sd = 4 * statistics.fmean(scales.values()), 4 * statistics.stdev(scales.values())
    assert at_40 == pytest.approx([mean - sd, mean + sd])


def test_one_seed_has_no_band_and_a_centerness_loss_has_a_panel(tmp_path):
    run = write_trace(
        tmp_path / "seed0", 3, lambda t, k: {"loss_cls": t, "loss_bbox": t, "loss_centerness": 0.5}
    )
    figure = curves.draw_levels(trace_files.read([run]))
    assert [axes.get_title(loc="left") for axes in figure.axes][2:] == ["Centerness loss"]
    assert not any(axes.collections for axes in figure.axes)


def test_more_intervals_than_a_column_can_show_are_averaged(tmp_path):
    values = np.random.default_rng(0).random(1000)
    run = write_trace(tmp_path / "seed0", 1000, lambda t, k: {"loss_cls": values[t - 1]}, names=["P3"])
    traces = trace_files.read([run])
    figure = curves.draw_levels(traces)
    assert series.describe_points(traces.levels) == " Each point is the mean of 5 intervals."
    x, y = lines_of(figure.axes[0])["P3"]
    np.testing.assert_allclose(y, values.reshape(200, 5).mean(1))
    np.testing.assert_allclose(x, np.arange(50, 10001, 50))


def test_intervals_below_one_are_broken_lines(tmp_path):
    run = write_trace(tmp_path / "seed0", 2, losses(1))
    text = (run / "trace.csv").read_text()
    (run / "trace.csv").write_text(text.replace("\n1,", "\n0,"))
    whole = trace_files.read([run])
    assert whole.problems[0].endswith("2 lines cannot be used (cut short or broken).")
    assert set(whole.levels["interval"]) == {2}
    (run / "trace.csv").write_text(text.replace("\n1,", "\n0,").replace("\n2,", "\n0,"))
    assert trace_files.read([run]).levels.empty


def test_traces_that_are_missing_broken_or_not_whole_are_told_of(tmp_path):
    good = write_trace(tmp_path / "seed0", 3, losses(1))
    torn = write_trace(tmp_path / "seed1", 3, losses(2))
    text = (torn / "trace.csv").read_text()
    (torn / "trace.csv").write_text(text[: text.rindex("P4") + 2])  # as a machine that stops leaves it
    odd, empty = (write_trace(tmp_path / f"seed{k}", 0, losses(1)) for k in (2, 3))
    (odd / "trace.csv").write_bytes(b"\x89PNG\r\n\x00\xff")
    traces = trace_files.read([good, torn, odd, empty, tmp_path / "seed4"])
    assert traces.seeds == [0, 1]
    assert len(traces.levels) == 6 + 5
    missing, *others = traces.problems
    assert "seed4 has no trace.csv" in missing
    assert [Path(text.split("/trace.csv")[0]).name for text in others] == ["seed1", "seed1", "seed2", "seed3"]
    assert "1 line cannot be used" in others[0] and "1 of 3 intervals" in others[1]
    assert "does not name the columns" in others[2] and "no interval yet" in others[3]
    nothing = trace_files.read([tmp_path / "seed4"])
    assert (
        curves.draw_level_curves(nothing, "x", "x") is None
        and policy.draw_policy_figure(nothing, "x", "x") is None
    )


def test_heads_are_kept_apart(tmp_path, unrendered):
    run = write_trace(tmp_path / "seed0", 3, lambda t, k: {"loss_cls": 1}, ["P2", "P3"], "rpn_head")
    write_trace(run, 3, lambda t, k: {"loss_cls": 2}, ["P2"], "roi_head")
    traces = trace_files.read([run])
    assert traces.heads == ["rpn_head", "roi_head"]
    assert [traces.of(head).level_names for head in traces.heads] == [["P2", "P3"], ["P2"]]
    assert set(traces.of("roi_head").levels["loss_cls"]) == {2}
    assert [p.name for p in draw_runs([run], "x")[0]] == ["x-rpn_head-levels", "x-roi_head-levels"]


def test_policy_shows_weights_probabilities_and_each_seeds_actions(tmp_path):
    drawn = [["", "largest", "uniform", "variance"], ["", "uniform", "uniform", "smallest"]]
    runs = [
        write_trace(tmp_path / f"seed{seed}", 4, policy_cells(actions)) for seed, actions in enumerate(drawn)
    ]
    traces = trace_files.read(runs)
    figure = policy.draw_policy(traces)
    assert series.describe_points(traces.levels) == ""
    p3, p4, probabilities, strip = figure.axes
    assert (p3.get_ylabel(), p4.get_ylabel()) == ("P3", "P4")
    steps = p3.patches[0].get_data()
    np.testing.assert_allclose(steps.values, [1, 1.5, 1, 2])  # mean of both seeds
    np.testing.assert_allclose(steps.edges, [0, 10, 20, 30, 40])
    np.testing.assert_allclose(lines_of(probabilities)["smallest"][1], [0.29, 0.28, 0.27, 0.26])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    colours = [to_hex(handle.get_markerfacecolor()) for handle in figure.legends[0].legend_handles]
    (image,) = strip.images
    shown = image.to_rgba(image.get_array())
    for row, actions in enumerate(drawn):
        assert shown[row, 0, 3] == 0  # nothing was in force in the first interval
        assert [names[colours.index(to_hex(cell))] for cell in shown[row, 1:]] == actions[1:]
    assert image.get_extent()[:2] == [0, 40] or tuple(image.get_extent()[:2]) == (0, 40)


def test_ten_rows_of_every_so_manieth_action_where_there_are_more(tmp_path):
    cycle = ["variance", "smallest", "largest"]
    actions = ["", *(cycle[t % 3] for t in range(1, 1000))]
    runs = [write_trace(tmp_path / f"seed{seed}", 1000, policy_cells(actions), ["P3"]) for seed in range(2)]
    traces = trace_files.read(runs * 6)
    cells = policy.build_action_cells(traces, cycle)
    assert cells.shape == (10, 333)
    assert "(of one interval in 3)" in policy._describe_actions(traces)
    assert all(cycle[int(cell)] == actions[3 * (n + 1) - 1] for n, cell in enumerate(cells[0]))


def test_the_baseline_and_fixed_weights_have_no_policy_figure(tmp_path):
    run = write_trace(tmp_path / "seed0", 3, lambda t, k: {"loss_cls": 1, "weight": 1.0 if t == 1 else 1.3})
    assert policy.draw_policy_figure(trace_files.read([run]), "x", "x") is None


def test_a_picture_has_the_width_of_a_column_and_refers_to_nothing_outside(tmp_path):
    run = write_trace(tmp_path / "seed0", 4, policy_cells(["", "largest", "uniform", "variance"]), ["P3"])
    one, two = (policy.draw_policy_figure(trace_files.read([run]), "x", "$\\alpha <b> 漢") for _ in range(2))
    assert one is not None and one == two
    width, height = struct.unpack(">II", one.png[16:24])
    assert DPI >= 200 and width == round(3.4 * DPI) and height < 4.5 * DPI
    ElementTree.fromstring(one.svg)
    found = re.findall(r"""(?:href|src)\s*=\s*["']([^"']*)|url\(([^)]*)\)""", one.svg)
    targets = [a or b for a, b in found]
    assert targets and all(target.startswith(("#", "data:image/png;base64,")) for target in targets)
    assert "<!DOCTYPE" not in one.svg and "<image" in one.svg
    assert "50%" not in one.caption and "Of 3 rewards 33% were positive" in one.caption


def table(report: Report, name: str, in_context: bool) -> MeasuredTable:
    (found,) = [t for t in report.tables if t.name == name and (t.context is not None) == in_context]
    return found


BASE, RLO = [50.0, 51.0, 50.4], [50.9, 51.2, 51.6]


def test_differences_are_drawn_with_the_paired_interval_and_published_ones_only_where_they_compare(
    results, make_run
):
    for profile in ("tiny", None):
        for seed in range(3):
            make_run("retinanet-r50", seed, {"AP": BASE[seed]}, profile=profile)
            make_run("retinanet-r50-rlo", seed, {"AP": RLO[seed]}, profile=profile)
    report = build_report(collect(results), ["table1"])
    interval = ttest_rel(RLO, BASE).confidence_interval(0.95)
    for in_context in (True, False):
        rows = forest.list_effects(table(report, "table1", in_context))
        assert [row.label for row in rows] == ["RetinaNet w/ RLO"]
        axes = forest.draw_differences(rows, "AP", "uniform").axes[0]
        drawn = {(line.get_marker(), line.get_linestyle()): line.get_xdata() for line in axes.lines[1:]}
        assert drawn["None", "-"] == pytest.approx([interval.low, interval.high])
        assert drawn[".", "None"] == pytest.approx([one - base for one, base in zip(RLO, BASE)])
        assert drawn["o", "None"] == pytest.approx([np.mean(RLO) - np.mean(BASE)])
        assert [list(x) for (mark, _), x in drawn.items() if mark == "D"] == ([] if in_context else [[0.8]])


def test_an_interval_of_two_seeds_does_not_stretch_the_axis(results, make_run):
    for seed in range(2):
        make_run("retinanet-r50", seed, {"AP": BASE[seed]}, profile="tiny")
        make_run("retinanet-r50-rlo", seed, {"AP": RLO[seed]}, profile="tiny")
    rows = forest.list_effects(table(build_report(collect(results), ["table1"]), "table1", True))
    assert rows[0].difference.high > 4
    axes = forest.draw_differences(rows, "AP", "uniform").axes[0]
    assert axes.get_xlim()[1] < 1.1
    assert {"<", ">"} <= {line.get_marker() for line in axes.lines}


def test_table_4_is_a_curve_over_the_values_as_run(results, make_run):
    found = {5: [50.0, 50.5], 10: [51.0, 51.4], 50: [50.2, 50.3]}
    for seed in range(2):
        make_run("retinanet-r50", seed, {"AP": BASE[seed]}, profile="tiny")
        for alpha, values in found.items():
            make_run("retinanet-r50-rlo", seed, {"AP": values[seed]}, profile="tiny",
                     sets=(f"weighting.alpha={alpha}",))  # fmt: skip
    shown = table(build_report(collect(results)), "table4", True)
    sweep = sweeps.find_sweep(shown, shown.rows)
    assert sweep is not None and sweep.key == "weighting.alpha"
    axes = sweeps.draw_sweep(sweep).axes[0]
    assert axes.get_xscale() == "log"
    (bars,) = axes.containers
    np.testing.assert_allclose(
        np.array(bars[0].get_data(), float), [list(found), [statistics.fmean(v) for v in found.values()]]
    )
    np.testing.assert_allclose(
        [np.ptp(segment[:, 1]) / 2 for segment in bars[2][0].get_segments()],
        [statistics.stdev(v) for v in found.values()],
    )
    lines = lines_of(axes)
    assert sorted(lines["single seeds"][1]) == sorted(v for values in found.values() for v in values)
    assert set(lines["baseline, mean ± sd"][1]) == {statistics.fmean(BASE[:2])}
    assert "published" not in lines and "baseline, published" not in lines


def test_published_values_stand_beside_where_the_table_is_the_published_one(results, make_run):
    make_run("retinanet-r50-rlo", 0, {"AP": 36.0})
    make_run("retinanet-r50-rlo", 0, {"AP": 36.4}, sets=("weighting.alpha=50",))
    shown = table(build_report(collect(results)), "table4", False)
    sweep = sweeps.find_sweep(shown, shown.rows)
    assert sweep is not None
    lines = lines_of(sweeps.draw_sweep(sweep).axes[0])
    np.testing.assert_allclose(lines["published"], [[5, 50, 100, 200, 500], [35.9, 36.4, 36.9, 36.7, 36.5]])
    assert set(lines["baseline, published"][1]) == {36.1}
    assert "single seeds" not in lines  # one each


def bench_part() -> dict[str, Any]:
    def times(seconds: float) -> dict[str, float]:
        return {"median_s": seconds, "q1_s": 0.9 * seconds, "q3_s": 1.2 * seconds, "n": 50}

    models = [
        {"id": name, "label": name.upper(), "model": times(0.1 * k), "end_to_end": times(0.2 * k)}
        for k, name in enumerate(["baseline", "rlo", "pafpn"], 1)
    ]
    result = {"profile": "tiny", "dataset": "shapes", "device": "cpu", "size": [160, 160], "models": models}
    environment = {"cpu": "an old one", "cpu_threads": 2, "packages": {"torch": "2.4.0"}, "gpus": []}
    return {
        "host": "h",
        "measured": "2026-01-02T03:04:05+00:00",
        "environment": environment,
        "result": result,
    }


def test_figure_4_has_a_pair_of_bars_for_each_model_and_says_what_it_was_measured_on(unrendered):
    part = bench_part()
    axes = timing.draw_times(part["result"]["models"]).axes[0]
    widths = [bar.get_width() for bar in axes.patches if bar.get_width()]
    assert widths == pytest.approx([100, 200, 300, 200, 400, 600])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["BASELINE", "RLO", "PAFPN"]
    made = timing.draw_inference_time(part, "x")
    assert all(text in made.caption for text in ("an old one", "torch 2.4.0", "160 x 160", "Profile tiny"))


def test_ap_stands_against_time_only_for_runs_of_the_same_profile(results, make_run, unrendered):
    for seed in range(2):
        make_run("retinanet-r50", seed, {"AP": BASE[seed]}, profile="tiny")
        make_run("retinanet-r50-rlo", seed, {"AP": RLO[seed]}, profile="tiny")
        make_run("retinanet-r50-pafpn", seed, {"AP": 52.0}, profile="tiny")
    report, part = build_report(collect(results)), bench_part()
    made = timing.draw_ap_over_time(part, report, "x")
    assert made is not None and "RLO 51.0 ± 0.2 (2) at 200 ms" in made.alt
    part["result"]["profile"] = None
    assert timing.draw_ap_over_time(part, report, "x") is None


def test_a_report_gets_a_set_of_figures_for_each_context(results, make_run, unrendered):
    for seed in range(2):
        for recipe, values in (("retinanet-r50", BASE), ("retinanet-r50-rlo", RLO)):
            run = make_run(recipe, seed, {"AP": values[seed]}, profile="tiny")
            actions = ["", "largest", "uniform", "smallest"] if recipe.endswith("rlo") else [""] * 4
            write_trace(run.path, 4, policy_cells(actions) if recipe.endswith("rlo") else losses(1))
    report = build_report(collect(results))
    (section,) = build_figure_sections(report, [])
    names = [picture.name for picture in section.pictures]
    assert section.title == "Figures, profile tiny on shapes"
    assert [
        text for text in section.texts if "(seeds 0, 1), for no RLO row has more seeds" in text
    ] == section.texts
    assert [re.sub(r"-[0-9a-f]{8}-", "-HASH-", name) for name in names][-3:] == [
        "retinanet-r50-HASH-levels", "retinanet-r50-rlo-HASH-levels", "retinanet-r50-rlo-HASH-policy",
    ]  # fmt: skip
    forests = [name for name in names if name.endswith("differences")]
    assert forests == [
        "table1-profile-tiny-on-shapes-differences"
    ]  # other tables show the same pair of configs
    assert len(set(names)) == len(names)
    assert "mean over seeds 0, 1" in section.pictures[-1].caption
    assert len(section.folders) == 4


def test_the_trainings_that_are_drawn_are_those_of_most_seeds(results, make_run, unrendered):
    for seed in range(3):
        make_run("retinanet-r50", seed, {"AP": BASE[seed]}, profile="tiny")
        for sets in ((), ("weighting.alpha=5",))[(seed == 2) :]:  # alpha 5 has a seed more
            run = make_run("retinanet-r50-rlo", seed, {"AP": RLO[seed]}, profile="tiny", sets=sets)
            write_trace(run.path, 4, policy_cells(["", "largest", "uniform", "smallest"]))
    (section,) = build_figure_sections(build_report(collect(results)), [])
    (shown,) = [picture for picture in section.pictures if picture.name.endswith("policy")]
    assert "alpha 5" in shown.caption and "mean over seeds 0, 1, 2" in shown.caption
    assert any("(seeds 0, 1, 2), for no RLO row has more seeds" in text for text in section.texts)


def test_an_ablations_curve_has_the_uniform_baseline_of_another_block(results, make_run):
    recipe, values = "retinanet-r50-rlo", {5: 51.0, 10: 52.0, 50: 50.5}
    rows = [
        {"id": f"a{v}", "label": f"α = {v}", "recipe": recipe, "set": {"weighting.alpha": v}} for v in values
    ]
    uniform = {"id": "baseline", "label": "uniform", "recipe": recipe, "set": {"weighting.rule": "uniform"}}
    content = {"name": "mine", "title": "Mine", "columns": ["AP"], "profile": "tiny"}
    content["blocks"] = [{"rows": [uniform]}, {"title": "α", "rows": rows}]
    (results / "ablations").mkdir(parents=True)
    (results / "ablations" / "mine.yaml").write_text(json.dumps(content))
    make_run(recipe, 0, {"AP": 49.0}, profile="tiny", sets=("weighting.rule=uniform",))
    for value, ap in values.items():
        make_run(recipe, 0, {"AP": ap}, profile="tiny", sets=(f"weighting.alpha={value}",))
    shown = next(t for t in build_report(collect(results)).tables if t.name == "mine")
    assert [sweeps.find_sweep(shown, rows) is None for _, rows in shown.blocks] == [True, False]
    axes = sweeps.draw_sweep(sweeps.find_sweep(shown, shown.blocks[1][1])).axes[0]
    assert set(lines_of(axes)["baseline"][1]) == {49.0}
    (measured,) = axes.containers
    assert np.array(measured[0].get_data(), float).tolist() == [list(values), list(values.values())]


def test_nothing_to_draw_is_no_section(results, make_run):
    assert build_figure_sections(build_report(collect(results)), []) == []
    make_run("retinanet-r50-rlo", 0, status="failed", profile="tiny")
    assert build_figure_sections(build_report(collect(results)), []) == []


def test_names_are_safe_for_files_and_used_once():
    used: set[str] = set()
    assert [make_stem(text, used) for text in ("../A b, <script>", "a b script", "漢")] == [
        "a-b-script", "a-b-script-2", "figure",
    ]  # fmt: skip


def typed(*words: str) -> Result:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(plot.plot)
    return CliRunner().invoke(app, words)


def test_plot_draws_all_seeds_that_fit_and_says_where(results, make_run, tmp_path, unrendered):
    for seed in range(2):
        write_trace(make_run("retinanet-r50", seed, profile="tiny").path, 3, losses(1))
    make_run("retinanet-r50-rlo", 0, profile="tiny")
    out = tmp_path / "out"
    told = typed("retinanet-r50", "retinanet-r50-rlo", "--results-dir", str(results), "--out", str(out))
    assert told.exit_code == 0, told.output
    (png, svg) = sorted(out.iterdir())
    assert re.fullmatch(r"retinanet-r50-[0-9a-f]{8}-levels\.png", png.name) and svg.stem == png.stem
    assert str(png) in told.stdout and str(svg) in told.stdout
    caption = " ".join(told.stdout.split())
    assert "uniform, alpha 10; profile tiny on shapes" in caption and "mean over seeds 0, 1" in caption
    assert "note:" in told.stderr and "retinanet-r50-rlo" in told.stderr and "no trace.csv" in told.stderr


def test_plot_of_runs_without_a_trace_is_a_users_mistake(results, make_run):
    make_run("retinanet-r50-rlo", 0, profile="tiny")
    for words, text in (("retinanet-r50-rlo", "no trace.csv"), ("retinanet-r50-rol", "did you mean")):
        error = typed(words, "--results-dir", str(results)).exception
        assert isinstance(error, UserError) and text in error.message and error.exit_code == 2
