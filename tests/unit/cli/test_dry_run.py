"""A dry run: its forecast, the runs that the forecast rests on, and the table of runs."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from experiments.common.errors import UserError
from experiments.launching.devices import Device, load_figures, parse_device
from experiments.launching.forecast import forecast
from experiments.launching.plan import PlannedRun, PlanOptions, plan, prepare
from experiments.recipes import catalogue
from experiments.recipes.loading import load_recipe, prepare_variants
from experiments.recipes.schema import Recipe
from experiments.runs.record import Attempt, Launch, Record
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.formatting import format_hours, format_size
from msdet_cli.console.plan_view import describe_runs, show_plan

RESULTS = Path("results")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tiny(name: str = "retinanet-r50-rlo", *sets: str) -> Recipe:
    return load_recipe(name, "tiny", sets)


def planned(recipe: Recipe, *seeds: int, **options: bool) -> list[PlannedRun]:
    return plan([("", recipe)], PlanOptions(seeds or [0], RESULTS, generate=False, **options))


def measured(run: PlannedRun, seconds: float, status: str = "done", workers: int = 1, device: str = "cpu",
             checkpoint: int = 0) -> RunFolder:  # fmt: skip
    """The run has been worked on, and took so long for each step."""
    run.folder.path.mkdir(parents=True, exist_ok=True)
    prepare(run, [])
    record = run.folder.read()
    record.status = status  # type: ignore[assignment]
    record.attempts = [
        Attempt(started="2026-01-01T10:00:00+00:00", host="h", pid=1, world_size=workers, device=device)
    ]
    if status == "done":
        record.timings = {"seconds_per_iteration": seconds}
    else:
        progress = {"seconds_per_iteration": seconds, "iteration": 30, "total": 330}
        run.folder.progress.write_text(json.dumps(progress))
    run.folder.write(record)
    if checkpoint:
        run.folder.checkpoints.mkdir()
        (run.folder.checkpoints / "iter_30.pth").write_bytes(b"x" * checkpoint)
    return run.folder


def test_forecast_uses_the_most_similar_run():
    wanted = planned(tiny("retinanet-r50-rlo", "weighting.n=3"))
    assert forecast(wanted)[0].worker_seconds is None  # unknown stays unknown
    measured(
        planned(load_recipe("retinanet-r50-avw", dataset="shapes"))[0], 64.0
    )  # full size: another profile
    assert forecast(wanted)[0].worker_seconds is None
    like = [
        (planned(tiny("retinanet-r50-avw"))[0], 4.0, "same model, profile and data"),
        (planned(tiny())[0], 2.0, "same recipe, profile and data"),
        (planned(tiny("retinanet-r50-rlo", "weighting.n=3"), 7)[0], 1.0, "same config"),
    ]
    for run, seconds, likeness in like:
        folder = measured(run, seconds)
        (cost,) = forecast(wanted)
        assert (cost.worker_seconds, cost.likeness) == (330 * seconds, likeness)
        assert cost.source is not None
        assert cost.source.run.path == folder.path


def test_forecast_rests_on_the_same_data_and_size_of_images():
    wanted = planned(tiny())
    for other in ("dataset.generate.train_images=100", "image_size=[320, 320]"):
        measured(planned(tiny("retinanet-r50-rlo", other))[0], 64.0)
        assert forecast(wanted)[0].worker_seconds is None
    measured(planned(tiny("retinanet-r50-rlo", "weighting.n=3"))[0], 2.0)
    assert forecast(wanted)[0].worker_seconds == 330 * 2.0


def test_forecast_separates_gpus_from_cpus_and_counts_workers():
    run = planned(tiny())[0]
    measured(run, 0.5, workers=4, device="GPU-X")
    other = planned(tiny(), 1)
    assert (
        forecast(other, on=True)[0].worker_seconds == 330 * 0.5 * 4
    )  # GPU-seconds, however many wait for it
    assert forecast(other, on=False)[0].worker_seconds is None
    measured(planned(tiny(), 2)[0], 3.0, workers=1, device="GPU-X")
    assert forecast(other)[0].worker_seconds == 330 * 3.0  # as many workers as planned comes first


def test_done_runs_cost_nothing_and_started_runs_less():
    stopped = measured(planned(tiny())[0], 0.5, status="interrupted", checkpoint=1000)
    measured(planned(tiny(), 1)[0], 0.5)
    begun, done, new = forecast(planned(tiny(), 0, 1, 2))
    assert (begun.iterations, begun.worker_seconds) == (300, 150)  # 30 of 330 are saved
    assert (done.iterations, done.worker_seconds, done.disk) == (0, 0, 0)
    assert (new.iterations, new.worker_seconds) == (330, 165)
    assert stopped.path.is_dir()


def test_disk_is_two_checkpoints_and_the_rest():
    folder = measured(planned(tiny())[0], 0.5, checkpoint=5000)
    rest = sum(p.stat().st_size for p in folder.path.iterdir() if p.is_file())
    (cost,) = forecast(planned(tiny(), 1))
    assert cost.disk == 2 * 5000 + rest


def shown(runs: list[PlannedRun], width: int = 200, on: Device | bool = False) -> str:
    console = Console(file=io.StringIO(), width=width)
    show_plan(console, runs, on)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_plan_ends_with_the_total_cost():
    text = shown(planned(tiny(), 0, 1))
    assert "time and disk: unknown, no similar run was measured here" in text
    assert "Ctrl-C" in text
    measured(planned(tiny())[0], 12.0, checkpoint=400_000_000)
    lines = shown(planned(tiny(), 0, 1, 2)).splitlines()
    assert "3 runs: 1 done, 2 to start" in lines
    assert "about 2.2 CPU-hours of training, without evaluation" in lines  # 2 x 330 x 12 s
    assert "about 1.6 GB on disk" in lines
    assert any("(same config): 12 s per iteration on 1 x cpu" in line for line in lines)


def test_plan_is_one_table_with_the_columns_that_differ():
    few = [("alpha=5", tiny("retinanet-r50-rlo", "weighting.alpha=5")), ("alpha=7", tiny("retinanet-r50-rlo",
            "weighting.alpha=7"))]  # fmt: skip
    runs = plan(few, PlanOptions([0], RESULTS, generate=False))
    header, first, second, *rest = shown(runs, 80).splitlines()
    assert header.split() == ["run", "varied", "state", "iterations"]
    assert first.split() == [runs[0].folder.name, "alpha=5", "to", "start", "330"]
    assert second.split()[:2] == [runs[1].folder.name, "alpha=7"]
    assert "run folders: results/runs" in rest
    assert all(len(line) <= 80 for line in (header, first, second, *rest))
    many = [replace(run, launch=Launch(processes=n)) for run, n in zip(runs, (1, 4))]
    assert shown(many).splitlines()[0].split() == ["run", "varied", "state", "iterations", "workers"]
    assert "workers per run: 4" in shown(many[1:])
    assert "varied" not in shown(runs[:1])


def test_plan_says_how_to_resume_failed_runs():
    measured(planned(tiny())[0], 1.0, status="failed")
    text = shown(planned(tiny()))
    assert "1 run: 1 failed or cancelled" in text
    assert "--retry-failed" in text


def test_variants_equal_single_loads_and_read_files_once(monkeypatch: pytest.MonkeyPatch):
    read: list[Path] = []
    real = catalogue.read_yaml
    monkeypatch.setattr(catalogue, "read_yaml", lambda path: (read.append(path), real(path))[1])
    sets = [["weighting.alpha=7"], [], ["weighting.rule=avw"], ["schedule.epochs=2"], ["dataset=coco"]]
    alone = [load_recipe("retinanet-r50-rlo", "tiny", each) for each in sets]
    read.clear()
    with_sets = prepare_variants("retinanet-r50-rlo", "tiny")
    few = len(read)
    assert [with_sets(each) for each in sets[:4] * 25] == alone[:4] * 25
    assert len(read) == few
    assert [with_sets(each) for each in sets] == alone


def test_plan_and_forecast_read_each_record_once(monkeypatch: pytest.MonkeyPatch):
    runs = planned(tiny(), *range(20))
    for run in runs:
        measured(run, 1.0)
    reads: list[str] = []
    real = RunFolder.read

    def read(self: RunFolder) -> Record:
        reads.append(self.name)
        return real(self)

    monkeypatch.setattr(RunFolder, "read", read)
    again = planned(tiny(), *range(40))
    assert sorted(reads) == sorted(run.folder.name for run in again)
    reads.clear()
    forecast(again)
    assert sorted(reads) == sorted(run.folder.name for run in runs)  # for all twenty that are new together


def test_hours_and_sizes_have_two_digits():
    assert [format_hours(s) for s in (36, 3600, 3600 * 9.96, 3600 * 123.4)] == ["0.01", "1.0", "10", "123"]
    assert [format_size(n) for n in (999, 1500, 74_900_000, 2.5e12)] == ["999 B", "1.5 kB", "75 MB", "2.5 TB"]


# ------------------------------------------------------------------------- forecasts for other GPUs


def elsewhere(recipe: Recipe, device: str) -> tuple[list[PlannedRun], Device]:
    """Runs of data that are not here, planned for a device."""
    found = parse_device(device)
    return plan(
        [("", recipe)], PlanOptions([0], RESULTS, gpus=found.gpus, known_images=load_figures()["images"])
    ), found


def test_device_figures_agree_with_published_speeds():
    recipe = load_recipe("retinanet-r50")
    runs, device = elsewhere(recipe, "p5000x4")
    (cost,) = forecast(runs, device)
    assert (cost.iterations, cost.workers) == (12 * 14786, 4)  # 118,287 images in batches of 8
    assert cost.source is not None
    assert cost.source.worker_seconds / 4 == pytest.approx(31.32 / 50, rel=0.01)  # §4.5, 2 images on each GPU
    assert cost.disk == 2 * 303_000_000
    runs, device = elsewhere(recipe, "v100")
    (cost,) = forecast(runs, device)
    zoo = (
        0.205 / 2 * 8
    )  # seconds of 8 images on one V100 at 640 to 800 pixels, whose mean area is 0.815 of 800's
    assert cost.worker_seconds == pytest.approx(177432 * zoo / 0.815, rel=0.01)


def test_device_figures_shrink_with_the_image_and_cover_no_unknown_model():
    full, half, voc = (
        forecast(*elsewhere(load_recipe(name, sets=sets), "a100"))[0]
        for name, sets in (
            ("retinanet-r50", ()),
            ("retinanet-r50", ["image_size=[666, 400]"]),
            ("retinanet-r50-voc", ()),
        )
    )
    assert half.worker_seconds == pytest.approx(full.worker_seconds / 4)
    per_image = full.worker_seconds / full.iterations, voc.worker_seconds / voc.iterations
    assert per_image[1] / per_image[0] == pytest.approx(
        800 * 600 / (1066.7 * 800), rel=0.001
    )  # a 4 x 3 image
    (unknown,) = forecast(planned(tiny()), parse_device("a100"))
    assert (unknown.worker_seconds, unknown.disk) == (None, None)
    assert "there is no figure for their models and profiles" in shown(
        planned(tiny()), on=parse_device("a100")
    )


def test_estimates_are_called_so_wherever_they_are_shown():
    runs, device = elsewhere(load_recipe("retinanet-r50"), "a100x4")
    text = shown(runs, on=device)
    assert re.search(r"hours \(estimated\) +disk \(estimated\)", text)
    assert re.search(
        r"about 27 GPU-hours of training, without evaluation, estimated\nabout 0\.28 days if 4 x", text
    )
    assert re.search(r"about 606 MB on disk, estimated", text)
    assert "estimated for retinanet_r50_fpn_1x_coco: 0.136 s per iteration on 4 x a100" in text
    assert "within a factor of two" in text
    (row,) = describe_runs(runs, dry_run=True, on=device)
    assert row["measured"] is None
    assert row["estimated"]["device"] == "a100"


def test_measured_figures_are_called_measured():
    (cost,) = forecast(planned(tiny()), parse_device("cpu"))
    bench = 0.402  # seconds of an iteration, uniform weights: results/bench/2026-11-25-cpu-2-cores.json
    assert cost.worker_seconds == pytest.approx(330 * bench, rel=0.01)
    text = shown(planned(tiny()), on=parse_device("cpu"))
    assert "CPU-hours of training, without evaluation, measured" in text
    assert "estimated" not in text
    runs, device = elsewhere(load_recipe("retinanet-r50"), "h100x4")
    bench = 0.0619  # seconds of a step of 2 images, the rules' median: results/bench/2026-11-26-h100.json
    (cost,) = forecast(runs, device)
    assert cost.worker_seconds == pytest.approx(cost.iterations * 4 * bench, rel=0.01)
    text = shown(runs, on=device)
    assert "GPU-hours of training, without evaluation, measured" in text
    assert "a step of 2 images on one H100" in text


def test_detectors_that_a_recipe_sets_have_figures_of_their_own():
    steps = {"retinanet-r50-augfpn": 0.1610, "faster-rcnn-r50-augfpn": 0.1056}  # seconds, from the same file
    for name, bench in steps.items():
        (cost,) = forecast(*elsewhere(load_recipe(name), "h100"))
        assert cost.worker_seconds == pytest.approx(cost.iterations * 4 * bench, rel=0.01)
    plain, other = (
        forecast(*elsewhere(load_recipe(name), "v100"))[0]
        for name in ("retinanet-r50", "retinanet-r50-augfpn")
    )
    assert plain.worker_seconds == other.worker_seconds  # no estimate tells them apart


@pytest.mark.parametrize("text", ["b200", "h100x0", "x4", "", "h100x99999", "h100\n"])
def test_unknown_devices_are_refused(text: str):
    with pytest.raises(UserError, match="allowed are v100"):
        parse_device(text)
