"""A dry run: what it forecasts and from which runs, and the commands it prints."""

from __future__ import annotations

import io
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from msdet_cli.console.equivalent import equivalent_command
from rich.console import Console

from experiments.launching.forecast import forecast
from experiments.launching.plan import PlannedRun, plan, prepare
from experiments.launching.table_runs import first_recipes
from experiments.recipes import catalogue
from experiments.recipes.loading import load_recipe, load_variants
from experiments.recipes.schema import Recipe
from experiments.recipes.tables import load_table
from experiments.runs.record import Attempt, Launch, Record
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.plan_view import hours, show_plan, size

RESULTS = Path("results")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tiny(name: str = "retinanet-r50-rlo", *sets: str) -> Recipe:
    return load_recipe(name, "tiny", sets)


def planned(recipe: Recipe, *seeds: int, **options: bool) -> list[PlannedRun]:
    return plan([("", recipe)], seeds or [0], RESULTS, generate=False, **options)


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


def test_the_run_most_like_it_tells_how_long_it_takes():
    wanted = planned(tiny("retinanet-r50-rlo", "weighting.n=3"))
    assert forecast(wanted)[0].worker_seconds is None  # unknown stays unknown
    measured(
        planned(load_recipe("retinanet-r50-avw", dataset="shapes"))[0], 64.0
    )  # full size: another profile
    assert forecast(wanted)[0].worker_seconds is None
    like = [
        (planned(tiny("retinanet-r50-avw"))[0], 4.0, "same model and profile"),
        (planned(tiny())[0], 2.0, "same recipe and profile"),
        (planned(tiny("retinanet-r50-rlo", "weighting.n=3"), 7)[0], 1.0, "same config"),
    ]
    for run, seconds, likeness in like:
        folder = measured(run, seconds)
        (cost,) = forecast(wanted)
        assert (cost.worker_seconds, cost.likeness) == (330 * seconds, likeness)
        assert cost.source is not None
        assert cost.source.run.path == folder.path


def test_workers_count_and_gpus_are_not_told_by_cpus():
    run = planned(tiny())[0]
    measured(run, 0.5, workers=4, device="GPU-X")
    other = planned(tiny(), 1)
    assert (
        forecast(other, on_gpus=True)[0].worker_seconds == 330 * 0.5 * 4
    )  # GPU-seconds, however many wait for it
    assert forecast(other, on_gpus=False)[0].worker_seconds is None
    measured(planned(tiny(), 2)[0], 3.0, workers=1, device="GPU-X")
    assert forecast(other)[0].worker_seconds == 330 * 3.0  # as many workers as planned comes first


def test_what_is_done_costs_nothing_and_what_was_begun_less():
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


def shown(runs: list[PlannedRun]) -> str:
    console = Console(file=io.StringIO(), width=200)
    show_plan(console, runs, on_gpus=False)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_plan_ends_with_what_it_takes_in_all():
    text = shown(planned(tiny(), 0, 1))
    assert "time and disk: not known: nothing like them was measured here" in text
    assert "Ctrl-C" in text
    measured(planned(tiny())[0], 12.0, checkpoint=400_000_000)
    lines = shown(planned(tiny(), 0, 1, 2)).splitlines()
    assert "3 runs: 1 done already, 2 to start" in lines
    assert "about 2.2 CPU-hours of training, evaluations not counted" in lines  # 2 x 330 x 12 s
    assert "about 1.6 GB on disk" in lines
    assert any("12 s an iteration on 1 x cpu" in line and "(same config)" in line for line in lines)


def command_gives(run: PlannedRun) -> bool:
    """Whether the printed command, with its options as the command line takes them, means this very run."""
    words = shlex.split(equivalent_command(run) or "")
    assert words[:2] == ["msdet", "run"]
    options = list(zip(words[3::2], words[4::2]))
    found = dict(options)
    sets = [value for option, value in options if option == "--set"]
    recipe = load_recipe(words[2], found.get("-p"), sets, found.get("--dataset"))
    (again,) = plan([("", recipe)], [int(found["--seed"])], RESULTS, generate=False)
    return again.folder.path == run.folder.path


@pytest.mark.parametrize("profile", ["tiny"])
@pytest.mark.parametrize("table", ["table1", "table3", "table5", "fig4", "controls"])
def test_the_command_of_each_row_of_a_table_means_that_run(table: str, profile: str):
    labelled = [(label, recipe.model_copy(update={"dataset": tiny().dataset})) for label, recipe in
                first_recipes([load_table(table)], profile) if recipe.dataset.format == "coco"]  # fmt: skip
    runs = plan(labelled, [3], RESULTS, generate=False)
    assert len(runs) > 3 or table == "fig4"
    assert all(command_gives(run) for run in runs)


SETS = [
    ["weighting.alpha=7"],
    ["weighting={rule: avw, alpha: 3}"],
    ["weighting.actions=[largest, uniform]"],
    ["schedule.epochs=3", "schedule.lr=1e-5"],
    ["schedule.iterations=50"],
    ["model.bbox_head.loss_cls.gamma=1.5", "+data.what={a: [1, x y]}"],
    ["dataset.generate.train_images=40"],
    ["image_size=[128, 96]"],
    ["amp=bf16"],
]


@pytest.mark.parametrize("sets", SETS, ids=lambda sets: sets[0])
def test_the_command_of_a_variant_means_that_run(sets: list[str]):
    assert command_gives(planned(tiny("retinanet-r50-rlo", *sets), 2)[0])


def test_the_command_names_a_results_folder_and_workers():
    (run,) = plan([("", tiny())], [0], Path("else where"), generate=False)
    assert (equivalent_command(run) or "").endswith("--seed 0 --results-dir 'else where'")
    many = PlannedRun(run.recipe, 0, run.data, run.folder, "start", "", launch=Launch(processes=4))
    assert "--gpus 4 " in (equivalent_command(many) or "")
    tracked = replace(many, launch=many.launch.model_copy(update={"track": ["wandb", "mlflow"]}))
    assert "--track wandb,mlflow" in (equivalent_command(tracked) or "")


def test_a_recipe_without_a_name_has_no_such_command():
    Path("mine.yaml").write_text("extends: retinanet-r50\n")
    assert equivalent_command(planned(load_recipe("mine.yaml", "tiny"))[0]) is None


def test_variants_are_what_each_would_be_alone_and_files_are_read_once(monkeypatch: pytest.MonkeyPatch):
    read: list[Path] = []
    real = catalogue.read_yaml
    monkeypatch.setattr(catalogue, "read_yaml", lambda path: (read.append(path), real(path))[1])
    sets = [["weighting.alpha=7"], [], ["weighting.rule=avw"], ["schedule.epochs=2"], ["dataset=coco"]]
    alone = [load_recipe("retinanet-r50-rlo", "tiny", each) for each in sets]
    read.clear()
    assert list(load_variants("retinanet-r50-rlo", "tiny", sets[:4])) == alone[:4]
    few = len(read)
    read.clear()
    assert list(load_variants("retinanet-r50-rlo", "tiny", sets[:4] * 25)) == alone[:4] * 25
    assert len(read) == few
    assert list(load_variants("retinanet-r50-rlo", "tiny", sets)) == alone


def test_a_plan_looks_at_each_record_once_and_measures_once(monkeypatch: pytest.MonkeyPatch):
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


def test_quantities():
    assert [hours(s) for s in (36, 3600, 3600 * 9.96, 3600 * 123.4)] == ["0.01", "1.0", "10", "123"]
    assert [size(n) for n in (999, 1500, 74_900_000, 2.5e12)] == ["999 B", "1.5 kB", "75 MB", "2.5 TB"]
