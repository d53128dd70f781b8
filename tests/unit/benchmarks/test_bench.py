"""What `msdet bench` measures with, on the CPU and scaled down; the figures themselves are nobody's test."""

import itertools
import json
import math
import statistics
import types
import warnings

import cv2
import pytest
import torch
import typer
from scipy import stats

from benchmarks import evaluation, inference, loader, loops, overhead, training_step
from benchmarks import results_file as keeping
from benchmarks.interleaved import Training
from benchmarks.ratios import balance_orders, estimate_ratio, summarize_times, take_turns
from experiments.common.errors import UserError
from experiments.data.find import FoundDataset
from experiments.data.problems import ProblemLog
from experiments.data.readers.coco import read_coco
from experiments.data.shapes import generator as shapes
from experiments.recipes.tables import load_table
from experiments.reporting.bench.results import SCHEMA, build_bench_sections, find_newest, read
from msdet_cli.commands import bench as command
from msdet_cli.commands.bench import bench

UNIFORM = loops.Loop("uniform", "uniform")


def ignore(progress):
    pass


def test_a_ratio_has_the_t_interval_of_the_mean_log_ratio():
    of, to = [1.1, 1.0, 1.2, 1.05, 1.15], [1.0, 1.0, 1.0, 1.0, 1.1]
    found = estimate_ratio(of, to)
    logs = [math.log(a / b) for a, b in zip(of, to)]
    low, high = stats.t.interval(0.95, 4, stats.tmean(logs), stats.sem(logs))
    assert found["ratio"] == pytest.approx(stats.gmean([a / b for a, b in zip(of, to)]))
    assert (found["low"], found["high"]) == pytest.approx(
        (math.exp(low), math.exp(high))
    )  # they alternate: r < 0
    assert found["rounds"] == 5


def test_rounds_that_are_like_their_neighbours_count_for_less():
    logs = [0.0, 0.0, 0.1, 0.1, 0.0, 0.0, 0.1, 0.1, 0.0, 0.1]
    found = estimate_ratio([math.exp(value) for value in logs], [1.0] * 10)
    apart = [-1, -1, 1, 1, -1, -1, 1, 1, -1, 1]  # in units of 0.05
    assert sum(a * b for a, b in itertools.pairwise(apart)) == -1
    assert math.log(found["high"]) == pytest.approx(stats.t.interval(0.95, 9, 0.05, stats.sem(logs))[1])

    logs = [0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.0, 0.0, 0.1, 0.1]
    found = estimate_ratio([math.exp(value) for value in logs], [1.0] * 10)
    r = 3 / 10 + 1 / 10  # of nine neighbours six are alike
    effective = 10 * (1 - r) / (1 + r)
    half = stats.t.ppf(0.975, effective - 1) * stats.tstd(logs) / math.sqrt(effective)
    assert (math.log(found["low"]), math.log(found["high"])) == pytest.approx((0.05 - half, 0.05 + half))


def test_equal_times_have_no_interval_and_a_single_one_no_quartiles():
    assert estimate_ratio([2.0] * 3, [1.0] * 3) == pytest.approx(
        {"ratio": 2, "low": 2, "high": 2, "rounds": 3}
    )
    assert summarize_times([0.5]) == {"median_s": 0.5, "q1_s": 0.5, "q3_s": 0.5, "n": 1}
    assert summarize_times([4.0, 1.0, 3.0, 2.0, 5.0]) == {"median_s": 3.0, "q1_s": 2.0, "q3_s": 4.0, "n": 5}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_in_turns_all_stand_everywhere_and_follow_each_other_equally_often(count):
    rows = balance_orders(count)
    assert all(sorted(row) == list(range(count)) for row in rows)
    for place in range(count):
        assert len({tuple(row).count(i) for row in rows for i in range(count)}) == 1
        assert {[row[place] for row in rows].count(i) for i in range(count)} == {len(rows) // count}
    pairs = [pair for row in rows for pair in itertools.pairwise(row)]
    others = [(a, b) for a in range(count) for b in range(count) if a != b]
    assert len({pairs.count(pair) for pair in others}) <= 1


def test_turns_begin_again_with_the_first_order():
    assert list(take_turns("ab", 3)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]
    orders = [
        "".join(thing for _, thing in turns)
        for _, turns in itertools.groupby(take_turns("abc", 7), lambda t: t[0])
    ]
    assert orders == [*("".join("abc"[place] for place in order) for order in balance_orders(3)), "abc"]


def part(result, measured="2026-01-01T10:00:00+00:00", load=0.0, **environment):
    environment = {"gpus": [], "cpu": "Z80", "cpu_threads": 1, "packages": {"torch": "2.4.0"}, **environment}
    return {"measured": measured, "took_s": 1.0, "load": load, "environment": environment, "result": result}


def test_a_part_measured_again_takes_the_place_of_the_older_one_and_leaves_the_others(tmp_path):
    kept = keeping.BenchFile(tmp_path, "my laptop")
    kept.add({"startup": part({"help s": 1.0}), "observe": part({"us": 3.0})})
    keeping.BenchFile(tmp_path, "my laptop").add({"startup": part({"help s": 0.5})})
    assert kept.path == tmp_path / "bench" / f"{kept.date}-my-laptop.json"
    written = json.loads(kept.path.read_text())
    assert (written["schema"], written["date"], written["host"]) == (SCHEMA, kept.date, "my laptop")
    assert {name: p["result"] for name, p in written["parts"].items()} == {
        "startup": {"help s": 0.5},
        "observe": {"us": 3.0},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[1]", "no file of msdet bench"),
        (json.dumps({"schema": SCHEMA + 1, "parts": {}}), f"has schema {SCHEMA + 1}"),
        (json.dumps({"schema": SCHEMA, "parts": {}}), "lacks"),
    ],
)
def test_a_broken_or_newer_file_is_a_sentence_and_is_not_written_over(tmp_path, text, said):
    keeping.BenchFile(tmp_path, "good").add({"startup": part({"help s": 1.0})})
    bad = keeping.BenchFile(tmp_path, "bad").path
    bad.write_text(text)
    benches, (problem,) = read([tmp_path])
    assert [bench["host"] for bench in benches] == ["good"]
    assert problem.startswith(str(bad)) and said in problem
    with pytest.raises(UserError, match="bad") as caught:
        keeping.BenchFile(tmp_path, "bad")
    assert "--host" in caught.value.hint and bad.read_text() == text


def test_a_part_without_its_figures_is_left_out_and_named(tmp_path):
    keeping.BenchFile(tmp_path, "odd").add({"overhead": part({"loops": 3}), "startup": part({"help s": 1.0})})
    (found,), (problem,) = read([tmp_path])
    assert list(found["parts"]) == ["startup"] and "'overhead'" in problem


def test_the_newest_of_each_machine_and_device_is_shown(tmp_path):
    for folder, date, value in (("a", "2026-01-02", 2.0), ("b", "2026-01-01", 1.0), ("b", "2026-01-03", 3.0)):
        (tmp_path / folder / "bench").mkdir(parents=True, exist_ok=True)
        parts = {"startup": part({"help s": value}, f"{date}T00:00:00+00:00")}
        content = {"schema": SCHEMA, "date": date, "host": "one", "parts": parts}
        (tmp_path / folder / "bench" / f"{date}-one.json").write_text(json.dumps(content))
    benches, problems = read([tmp_path / "a", tmp_path / "b"])
    assert [bench["date"] for bench in benches] == ["2026-01-03", "2026-01-02", "2026-01-01"] and not problems
    assert [m["result"]["help s"] for m in find_newest(benches, "startup")] == [3.0]
    ((section),) = build_bench_sections(benches)
    assert section.grids[0].rows == [["help s", "3"]]
    assert "Z80, 1 thread, torch 2.4.0, 2026-01-03" in section.grids[0].title
    assert build_bench_sections([]) == [] and find_newest(benches, "eval") == []


def test_what_stopped_the_command_leaves_the_parts_that_were_done(tmp_path, monkeypatch, capsys):
    def interrupted(progress):
        raise KeyboardInterrupt

    measures = {"observe": (lambda progress: {"us": 1.0}, {}), "startup": (interrupted, {})}
    monkeypatch.setattr(command, "_measures", lambda options: measures)
    with pytest.raises(typer.Exit) as caught:
        bench(
            ["observe", "startup"], as_json=True, results=tmp_path, host="here", out=tmp_path / "x" / "y.json"
        )
    assert caught.value.exit_code == 75
    (found,), _ = read([tmp_path])
    assert list(found["parts"]) == ["observe"] and found["parts"]["observe"]["result"] == {"us": 1.0}
    assert found["parts"]["observe"]["environment"]["packages"]["torch"]
    assert found["parts"]["observe"]["command"] == "msdet bench observe"
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "x" / "y.json").read_text())
    assert said["parts"] == found["parts"]


def test_both_evaluations_give_the_same_numbers(monkeypatch):
    monkeypatch.setattr(evaluation, "REPEATS", 2)
    found = evaluation.measure(12, ignore)
    assert list(found["metrics"]) == list(evaluation.METRICS)
    assert 5 < 100 * found["metrics"]["AP"][0] < 95 and found["metrics"]["APS"][0] > 0
    assert found["equal"] and found["largest_difference"] <= 1e-6
    assert found["images"] == 12 and found["detections"] > 12 * 30


def test_the_models_of_figure_4_are_those_of_its_table(tmp_path):
    image, rows = tmp_path / "image.jpg", inference.load_rows(None, None, None)
    assert [(row.id, recipe.name) for row, recipe in rows] == [
        (row.id, row.recipe) for row in load_table("fig4").rows()
    ]
    assert {recipe.image_size for _, recipe in rows} == {None}
    inference.write_noise_image(image, inference.PAPER_SIZE)
    height, width = cv2.imread(str(image)).shape[:2]
    assert (width, round(width * 800 / height)) == (640, 1333)  # resized, it fills (1333, 800)


@pytest.mark.slow
def test_inference_of_rlo_is_that_of_the_baseline_on_equal_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inference, "REPEATS", 1)
    found = inference.measure("tiny", None, (64, 64), 2, ignore)
    rows = list(load_table("fig4").rows())
    assert [m["id"] for m in found["models"]] == [row.id for row in rows]
    parameters = {m["id"]: m["parameters"] for m in found["models"]}
    flops = {m["id"]: m["flops"] for m in found["models"]}
    assert (
        parameters["rlo"]
        == parameters["baseline"]
        < min(parameters[i] for i in ("balanced-fpn", "pafpn", "augfpn"))
    )
    assert flops["rlo"] == flops["baseline"] < flops["pafpn"]
    # 4 classes x 9 anchors in every cell of P3..P7, or the 1000 best
    assert found["candidates"] == sum(min(1000, 36 * side**2) for side in (8, 4, 2, 1, 1))
    assert found["models"][0]["model_ratio"] is None and found["models"][1]["model_ratio"]["rounds"] == 2
    kept = {
        "schema": SCHEMA,
        "date": "2026-01-01",
        "host": "here",
        "parts": {"inference": part(found)},
        "file": "",
    }
    (section,) = build_bench_sections([kept])
    assert [row[0] for row in section.grids[0].rows] == [row.label for row in rows]


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return loops.Task("retinanet-r50", "tiny", batch=2)


@pytest.fixture
def data(task, tmp_path):
    """Some of the built-in images."""
    spec = task.load("uniform").dataset
    shapes.generate(tmp_path / "shapes", {**spec.generate, "train_images": 8, "val_images": 1})
    return FoundDataset(
        spec, tmp_path / "shapes", list(shapes.CLASSES), {"train": 8, "val": 1}, "fingerprint"
    )


def test_the_stock_loop_is_mmdetections_own(task, data, tmp_path):
    import mmdet.models.detectors
    import mmengine.runner
    from torch.utils.data import BatchSampler

    ours = loops.build_config(task, loops.Loop("RLO"), data, tmp_path / "ours")
    config = loops.build_stock_config(ours)
    text = config.pretty_text
    assert not any(
        word in text for word in ("experiments.", "LevelWeighted", "Resumable", "ProgressHook", "weighting")
    )
    runner = loops.build_runner(config, stock=True)
    assert type(runner) is mmengine.runner.Runner
    assert type(runner.model) is mmdet.models.detectors.RetinaNet
    training = Training(runner)
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    assert training.advance(1) > 0 and training.advance(1) > 0
    assert type(runner.train_loop) is mmengine.runner.IterBasedTrainLoop
    assert runner.iter == 1  # it counts behind the last hook, where it waits
    assert isinstance(runner.train_dataloader.batch_sampler, BatchSampler)
    assert not type(runner.train_dataloader.batch_sampler).__module__.startswith("experiments")
    assert ours.optim_wrapper == config.optim_wrapper and ours.train_dataloader.batch_size == 2
    assert any(not torch.equal(before[name], value) for name, value in runner.model.state_dict().items())
    training.end()


def test_epochs_are_trained_by_mmengines_own_epoch_loop(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    task = loops.Task("retinanet-r50", dataset="shapes", batch=3, size=(320, 192))
    ours = loops.build_config(task, UNIFORM, data, tmp_path)
    assert ours.train_cfg.type == "ResumableTrainLoop" and ours.train_dataloader.batch_size == 3
    assert "accumulative_counts" not in ours.optim_wrapper  # one forward pass a step
    assert [s["scale"] for s in ours.train_dataloader.dataset.pipeline if s["type"] == "Resize"] == [
        (320, 192)
    ]
    assert loops.build_stock_config(ours).train_cfg.type == "EpochBasedTrainLoop"


def test_a_detector_that_mmdetection_lacks_has_no_stock_loop(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    ours = loops.build_config(loops.Task("retinanet-r50-augfpn", "tiny"), UNIFORM, data, tmp_path)
    with pytest.raises(UserError, match="no detector 'AugRetinaNet'"):
        loops.build_stock_config(ours)


def test_what_a_training_raises_is_raised_where_it_is_waited_for(tmp_path):
    class Broken:
        def register_hook(self, hook):
            pass

        def train(self):
            raise ValueError("no images")

    training = Training(Broken())
    with pytest.raises(ValueError, match="no images"):
        training.advance(1)
    training.end()


@pytest.mark.parametrize(
    ("alpha", "settle", "steps", "expected"), [(10, 1, 6, 6), (100, 5, 20, 22), (10, 1, 9, 10)]
)
def test_blocks_do_not_keep_step_with_the_intervals(alpha, settle, steps, expected):
    assert overhead._beside(alpha, settle, steps) == expected
    ends = {(settle + expected) * block % alpha for block in range(alpha)}
    assert ends == set(range(alpha))  # an interval's end comes at every place of a block


def test_uniform_counts_as_the_mean_of_its_two_trainings():
    seconds = {"uniform": [1.0, 4.0], "again": [4.0, 1.0], "rlo": [2.0, 2.2]}
    assert overhead._ratio("rlo", "uniform", seconds) == estimate_ratio([2.0, 2.2], [2.0, 2.0])
    assert overhead._ratio("again", "uniform", seconds) == estimate_ratio([4.0, 1.0], [1.0, 4.0])


@pytest.mark.slow
def test_overhead_tells_all_loops(task):
    found = overhead.measure(task, 2, 1, ignore)
    assert [loop["id"] for loop in found["loops"]] == ["stock", "uniform", "again", "avw", "rlo"]
    assert found["loops"][0]["rule"] is None and found["loops"][-1]["rule"]["iteration_s"] > 0
    assert found["alpha"] == 10 and found["batch"] == 2
    kept = {
        "schema": SCHEMA,
        "date": "2026-01-01",
        "host": "here",
        "parts": {"overhead": part(found)},
        "file": "",
    }
    (section,) = build_bench_sections([kept])
    assert len(section.grids[0].rows) == 5


def test_a_step_of_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stepper = training_step.Stepper("retinanet-r50-guided", "tiny", batch_size=1, size=(160, 96))
    assert stepper.step()["loss"].item() > 0


def test_steps_on_a_gpu_are_timed_and_their_waits_counted(monkeypatch):
    class Stepper:
        def __init__(self, recipe, loop="ours", **options):
            assert options == {"profile": None, "batch_size": 2, "size": (1333, 800), "device": "cuda"}
            self.loop = loop

        def step(self):
            for _ in range(1 if self.loop == "fast" else 3):
                warnings.warn("called a synchronizing operation", stacklevel=1)
            return {"loss": torch.tensor(0.5)}

    gpu = types.SimpleNamespace(
        is_available=lambda: True,
        reset_peak_memory_stats=lambda: None,
        synchronize=lambda: None,
        max_memory_allocated=lambda: 3 * 2**20,
        set_sync_debug_mode=lambda mode: None,
    )
    monkeypatch.setattr(torch, "cuda", gpu)
    monkeypatch.setattr(training_step, "Stepper", Stepper)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = training_step.measure()
    assert found["synchronisations of a step"] == {"stock": 3, "rlo": 3, "rlo with --fast": 1}
    figures = found["one step"]["retinanet-r50"]
    assert len(found["one step"]) > 30 and "tiny" not in found["one step"]
    assert figures["seconds, median"] > 0 and figures["seconds, the first"] > 0
    assert (figures["loss"], figures["peak memory, MiB"]) == (0.5, 3)


def test_dispatch_counts_a_step_of_each_recipe_under_each_rule(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bench(["dispatch", "fcos-r50"], profile="tiny", results=tmp_path, host="here")
    ((kept,), problems) = read([tmp_path])
    measured = kept["parts"]["dispatch"]
    assert measured["command"] == "msdet bench dispatch fcos-r50 -p tiny" and not problems
    counts = measured["result"]["recipes"]["fcos-r50"]
    assert list(counts) == ["stock", "uniform", "rlo", "fast"]
    assert counts["uniform"] == counts["rlo"]
    more = counts["rlo"]["operations"] - counts["stock"]["operations"]
    assert counts["rlo"]["waits"] == counts["stock"]["waits"] > 0 and 0 < more <= 30
    (section,) = build_bench_sections([kept])
    (*_, row, _) = section.grids[0].rows
    assert row[:4] == ["fcos-r50", "rlo", str(counts["rlo"]["operations"]), f"+{more}"]
    assert "What a training step asks of the host" in capsys.readouterr().out


@pytest.mark.slow
def test_images_per_second_of_whole_trainings_in_turns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bench(["train"], batch=2, size=(96, 96), rounds=2, steps=1, results=tmp_path, host="here")
    ((kept,), problems) = read([tmp_path])
    result = kept["parts"]["train"]["result"]
    assert not problems and [measured["batch"] for measured in result["batches"]] == [2]
    loops = {loop["id"]: loop for loop in result["batches"][0]["loops"]}
    assert list(loops) == ["stock", "ours", "fast", "fast_bf16"]
    for loop in loops.values():
        assert loop["iteration"]["median_s"] == pytest.approx(statistics.median(loop["rounds_s"]), rel=1e-4)
    (section,) = build_bench_sections([kept])
    label, images, *_ = section.grids[0].rows[-1]
    assert label == "msdet, RLO, --fast --amp bf16"
    assert float(images) == pytest.approx(2 / loops["fast_bf16"]["iteration"]["median_s"], rel=0.01)


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="torch sees no GPU") as caught:
        bench(["gpu"], results=tmp_path)
    assert caught.value.exit_code == 2


def test_a_busy_machine_and_a_control_that_is_off_are_said():
    def loop(name):
        kinds = {"detector": "D", "runner": "R", "loop": "L"}
        return {"id": name, "label": name, **kinds, "iteration": summarize_times([0.5]), "rule": None}

    off = {
        "of": "again",
        "to": "uniform",
        "ratio": 1.02,
        "low": 1.01,
        "high": 1.03,
        "rounds": 20,
        "cpu": None,
    }
    task = {
        "recipe": "r",
        "profile": None,
        "dataset": "coco",
        "device": "cpu",
        "batch": 2,
        "size": None,
        "alpha": 100,
    }
    trained = [loop("stock"), loop("uniform"), loop("again")]
    result = {**task, "rounds": 20, "steps": 6, "loops": trained, "ratios": [off]}
    parts = {"overhead": part(result, load=1.5, cpu_cores=2)}
    bench = {"date": "2026-01-01", "host": "here", "file": "", "parts": parts}
    (section,) = build_bench_sections([bench])
    assert section.grids[0].rows[2] == ["again", "500 (500-500)", "", ""]
    assert section.grids[1].rows == [["again / uniform", "1.020 [1.010, 1.030]", "-"]]
    said = " ".join(section.texts)
    assert "load 1.5 on 2 cores" in said and "measures 1.020 [1.010, 1.030]: take differences" in said
    off["low"], off["cpu"], parts["overhead"]["load"] = 0.99, {"ratio": 1.0, "low": 0.99, "high": 1.01}, 0.1
    (section,) = build_bench_sections([bench])
    assert section.grids[1].rows == [["again / uniform", "1.020 [0.990, 1.030]", "1.000 [0.990, 1.010]"]]
    said = " ".join(section.texts)
    assert "at other work" not in said and "take differences" not in said


def test_loading_is_timed_of_equal_pixels_and_annotations_in_two_processes(monkeypatch):
    monkeypatch.setattr(loader, "FILES", 2)
    found = loader.measure(20, (80, 60), 2, ignore)
    assert found["images"]["equal"] is True
    assert set(found["images"]["a second and core"]) == {"stock", "msdet"}
    assert all(found["annotations"][f"{start} start"]["s"] > 0 for start in ("first", "second"))


def test_made_up_annotations_are_of_cocos_size(tmp_path):
    loader.write_annotations(tmp_path / "made-up.json", 20)
    content = json.loads((tmp_path / "made-up.json").read_text())
    assert (len(content["images"]), len(content["annotations"])) == (20, round(20 * 860_001 / 118_287))
    read = read_coco(tmp_path / "made-up.json", tmp_path, ProblemLog(strict=True))
    assert sum(len(image.boxes) for image in read.images) == len(content["annotations"])
