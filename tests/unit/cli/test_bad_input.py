"""A user's mistakes, through the real command: exit code 2, one line that says what, where and what is allowed."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from experiments.data.shapes import generator as shapes
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder
from msdet_cli import main as command_line
from msdet_cli import model_checks


@pytest.fixture
def msdet(tmp_path, monkeypatch, capsys):
    """Types a command in an empty working directory; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("MSDET_RESULTS", raising=False)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["msdet", *words])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


def assert_one_line(result, *words):
    code, _, err = result
    lines = err.strip().splitlines()
    assert code == 2, err
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert "Traceback" not in err
    for word in words:
        assert word in lines[0], f"{word!r} not in {lines[0]!r}"
    return lines[1] if len(lines) > 1 else ""


def page(path, **content):
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_unknown_names_suggest_the_nearest(msdet):
    hint = assert_one_line(
        msdet("run", "retinanet-r50-rol"), "retinanet-r50-rol", "did you mean 'retinanet-r50-rlo'"
    )
    assert "msdet ls" in hint
    assert_one_line(msdet("run", "retinanet-r50", "-p", "tiyn"), "tiyn", "did you mean 'tiny'")
    assert_one_line(msdet("run", "retinanet-r50", "--dataset", "shaps"), "shaps", "did you mean 'shapes'")
    assert_one_line(msdet("report", "tabel1"), "tabel1", "table1")
    assert_one_line(msdet("report", "--format", "markdwn"), "markdwn", "md")
    assert_one_line(msdet("bench", "observ"), "observ", "observe")
    assert_one_line(msdet("data", "verify", "coko"), "coko", "coco")
    assert_one_line(msdet("eval", "nothing"), "nothing")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"weighting": {"rule": "rlo", "alpha": 1}}, ["weighting.alpha", "1", "2"]),
        ({"weighting": {"rule": "rlo", "alhpa": 50}}, ["alhpa", "did you mean 'alpha'"]),
        ({"weighting": {"rule": "rlo", "beta": [0.9, 0.1]}}, ["weighting.beta", "[0.9, 0.1]", "lower < upper"]),
        ({"weighting": {"rule": "rlo", "gamma": -1}}, ["weighting.gamma", "-1", "0"]),
        ({"weighting": {"rule": "rlo", "actions": []}}, ["weighting.actions", "at least 1"]),
        ({"weighting": {"rule": "rlo", "n": 0}}, ["weighting.n", "0", "1"]),
        ({"weighting": {"rule": "rol"}}, ["rol", "did you mean 'rlo'"]),
        ({"wieghting": {"rule": "rlo"}}, ["wieghting", "did you mean 'weighting'"]),
        ({"schedule": {"lr": 0.1, "milestone": [8]}}, ["schedule.milestone", "milestones"]),
        ({"schedule": {"lr": "fast"}}, ["schedule.lr", "fast"]),
        ({"schedule": {"epochs": 12, "iterations": 100}}, ["epochs", "iterations"]),
        ({"dataset": {"name": "d", "format": "coco", "root": "r", "splits": {"trian": {}, "val": {}}}},
         ["dataset.splits.trian", "did you mean 'train'"]),
        ({"dataset": {"name": "d", "format": "yolo", "root": "r", "splits": {}}}, ["yolo", "coco"]),
        ({"extends": "retinanet-r50-rl"}, ["extends", "retinanet-r50-rlo"]),
    ],
)  # fmt: skip
def test_recipe_errors_name_key_and_value(msdet, tmp_path, content, words):
    path = page(tmp_path / "mine.yaml", **{"extends": "retinanet-r50", **content})
    assert_one_line(msdet("run", path, "--dry-run"), *words)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("weighting.alpha=1", ["alpha", "1"]),
        ("weighting.alhpa=5", ["alhpa", "alpha"]),
        ("schedule.lr=-1", ["schedule.lr", "-1"]),
        ("lr=0.1", ["lr", "schedule.lr"]),
        ("weighting.alpha", ["weighting.alpha", "="]),
        ("weighting.beta=[0.9,0.1]", ["weighting.beta", "[0.9, 0.1]", "lower < upper"]),
        ("weighting.gamma=-1", ["weighting.gamma", "-1"]),
        ("weighting.actions=[]", ["weighting.actions", "at least 1"]),
        ("weighting.actions=[variance,bigest]", ["weighting.actions", "bigest", "largest"]),
        ("dataset.splits.trian.images=x", ["dataset.splits.trian", "did you mean 'train'"]),
        ("dataset.generate.sede=1", ["sede", "seed"]),
        ("init_from=nowhere.pth", ["init_from", "nowhere.pth"]),
    ],
)
def test_assignment_errors_are_one_line(msdet, assignment, words):
    assert_one_line(msdet("run", "retinanet-r50-rlo", "-p", "tiny", "--dry-run", "--set", assignment), *words)


def test_misspelt_nested_mmengine_key_is_refused(msdet, tmp_path):
    path = page(tmp_path / "mine.yaml", extends="retinanet-r50", set={"model.bbox_head.loss_cls.gama": 1.5})
    hint = assert_one_line(
        msdet("validate", path), "model.bbox_head.loss_cls", "gama", "did you mean 'gamma'"
    )
    assert "+model.bbox_head.loss_cls.gama" in hint


def test_files_that_are_not_recipes_are_refused(msdet, tmp_path):
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    assert_one_line(msdet("run", "list.yaml"), "list.yaml", "mapping")
    (tmp_path / "broken.yaml").write_text("model: [1, 2\nname: x\n")
    assert_one_line(msdet("run", "broken.yaml"), "broken.yaml", "line")
    (tmp_path / "code.yaml").write_text("model: !!python/object/apply:os.getcwd []\n")
    assert_one_line(msdet("run", "code.yaml"), "code.yaml")
    page(tmp_path / "self.yaml", extends="self.yaml")
    assert_one_line(msdet("run", "./self.yaml"), "extends itself")
    page(tmp_path / "a.yaml", extends="b.yaml")
    page(tmp_path / "b.yaml", extends="a.yaml")
    assert_one_line(msdet("run", "./a.yaml"), "a -> b -> a")
    assert_one_line(msdet("run", "./missing.yaml"), "missing.yaml")


def test_missing_coco_names_its_folder_and_the_tiny_profile(msdet, tmp_path):
    hint = assert_one_line(
        msdet("run", "retinanet-r50-rlo"),
        str(tmp_path / "data" / "coco"),
        "instances_train2017.json",
        "val2017",
    )
    assert "--data-root" in hint
    assert "-p tiny" in hint


@pytest.fixture
def data(tmp_path):
    """A small COCO-format set of one's own, and the words that name it."""
    root = tmp_path / "own"
    shapes.generate(
        root, {"seed": 0, "train_images": 6, "val_images": 4, "size": 64, "min_side": 8, "max_side": 40}
    )
    (root / "shapes.json").unlink()
    splits = {s: {"annotations": f"annotations/{s}.json", "images": s} for s in ("train", "val")}
    path = page(tmp_path / "own.yaml", name="own", format="coco", root=str(root), splits=splits)
    return root, ("run", "retinanet-r50", "-p", "tiny", "--dataset", path)


def test_valid_data_can_be_planned(msdet, data):
    code, out, _ = msdet(*data[1], "--dry-run")
    assert code == 0
    assert "start" in out


def test_truncated_annotations_are_refused(msdet, data):
    root, words = data
    file = root / "annotations" / "train.json"
    file.write_text(file.read_text()[:200])
    assert_one_line(msdet(*words), str(file))


def test_annotation_of_a_missing_image_is_refused(msdet, data):
    root, words = data
    gone = sorted((root / "val").iterdir())[1]
    gone.unlink()
    assert_one_line(msdet(*words), gone.name, "missing")


def test_mismatching_classes_are_refused(msdet, data, tmp_path):
    _, words = data
    content = yaml.safe_load((tmp_path / "own.yaml").read_text())
    page(tmp_path / "own.yaml", **content, classes=["disc", "sqare"])
    assert_one_line(msdet(*words), "sqare", "square")


def test_annotation_of_an_unknown_category_is_refused(msdet, data):
    root, words = data
    file = root / "annotations" / "train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["category_id"] = 99
    file.write_text(json.dumps(content))
    assert_one_line(msdet(*words), str(file), "99")


def test_unwritable_results_folder_is_refused(msdet, data, tmp_path):
    _, words = data
    (tmp_path / "occupied").write_text("a file, not a folder")
    hint = assert_one_line(msdet(*words, "--results-dir", "occupied"), "occupied", "cannot be written")
    assert "--results-dir" in hint
    assert (tmp_path / "occupied").read_text() == "a file, not a folder"


@pytest.mark.parametrize("option", ["--results-dir", "MSDET_RESULTS"])
def test_results_folder_below_a_file_is_refused(msdet, data, tmp_path, monkeypatch, option):
    (tmp_path / "occupied").write_text("mine")
    if option == "MSDET_RESULTS":
        monkeypatch.setenv(option, "occupied/deeper")
        assert_one_line(msdet(*data[1]), "occupied/deeper", "cannot be written")
    else:
        assert_one_line(msdet(*data[1], option, "occupied/deeper"), "occupied/deeper", "cannot be written")


def test_bad_input_keeps_an_earlier_run(msdet, data):
    _, words = data
    code, out, _ = msdet(*words, "--dry-run", "--json")
    assert code == 0
    earlier = RunFolder(json.loads(out)[0]["folder"])
    earlier.checkpoints.mkdir(parents=True)
    (earlier.checkpoints / "iter_50.pth").write_text("weights")
    digest = earlier.path.parent.name
    earlier.write(
        Record(recipe="retinanet-r50", recipe_id="0" * 8, config_hash=digest, seed=0, status="interrupted")
    )
    before = {path: path.read_bytes() for path in earlier.path.rglob("*") if path.is_file()}
    assert "resume" in msdet(*words, "--dry-run")[1]
    for mistake in (
        ["--set", "weighting.alpha=1"],
        ["--seed", "0", "--seeds", "1"],
        ["--set", "init_from=nowhere.pth"],
        ["--data-root", "nowhere"],
        ["--force", "--set", "weighting.n=0", "--set", "weighting.rule=rlo"],
    ):
        assert_one_line(msdet(*words, *mistake))
        assert {path: path.read_bytes() for path in earlier.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--alpha", "1,50"], ["alpha", "1"]),
        (["--actions", "variance,bigest"], ["bigest", "largest"]),
        (["--n", "1,two"], ["weighting.n", "two"]),
        (["--gamma", "0.01,,0.1"], ["a value is empty"]),
        (["--set", "weighting.beta=[0.1,0.9],[0.9,0.1]"], ["beta", "[0.9, 0.1]"]),
        (["--set", "weighting.amplification=[1.5,1.0"], ["brackets or quotes do not match"]),
        (["--set", "weighting.alpha"], ["weighting.alpha", "="]),
        (["--alpha", "5", "--seed", "1", "--seeds", "2"], ["--seed", "--seeds"]),
        (["no-such-recipe", "--alpha", "5"], ["no-such-recipe"]),
    ],
)
def test_ablation_errors_are_one_line(msdet, words, named):
    assert_one_line(msdet("ablate", "-p", "tiny", "--dry-run", *words), *named)


def test_error_and_exit_code_of_the_installed_command(tmp_path):
    (tmp_path / "list.yaml").write_text("- a\n")
    for words in (["run", "list.yaml"], ["run", "retinanet-r50-rlo", "--set", "weighting.alpha=1"]):
        ended = in_a_process(tmp_path, *words)
        assert_one_line((ended.returncode, ended.stdout, ended.stderr))
        assert ended.stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ("run", "retinanet-r50-rlo", "-p", "tiny"),
        ("run", "retinanet-r50-rlo", "-p", "tiny", "--dry-run"),
        ("ablate", "-p", "tiny", "--alpha", "5,10"),
        ("validate", "retinanet-r50-rlo", "-p", "tiny"),
        ("reproduce", "mine.yaml", "-p", "tiny"),
    ],
)
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("weighting.n", 6, ["weighting.n: 6", "5 levels", "1 to 5"]),
        ("model.bbox_head.loss_cls.gama", 1.5, ["model.bbox_head.loss_cls", "gama", "did you mean 'gamma'"]),
    ],
)
def test_what_the_model_refuses_is_refused_before_anything_is_written(
    msdet, tmp_path, words, key, value, said
):
    row = {"id": "a", "label": "a", "recipe": "retinanet-r50-rlo", "set": {key: value}}
    page(tmp_path / "mine.yaml", name="mine", title="Mine", columns=["AP"], blocks=[{"rows": [row]}])
    more = () if words[0] == "reproduce" else ("--set", f"{key}={value}")
    assert_one_line(msdet(*words, *more), *said)
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "data").exists()


def test_levels_are_those_of_the_weighted_head(msdet):
    words = ["run", "faster-rcnn-r50-rlo", "-p", "tiny", "--dry-run", "--set", "weighting.n=5"]
    assert_one_line(msdet(*words), "weighting.n: 5", "4 levels")
    assert msdet(*words, "--set", "weighting.where=rpn")[0] == 0  # P2 to P6
    assert_one_line(msdet("validate", "retinanet-r50", "--set", "weighting.where=rpn"), "where", "one head")


def test_an_empty_value_is_no_value(msdet):
    words = ["run", "retinanet-r50-rlo", "-p", "tiny", "--dry-run", "--set"]
    assert_one_line(msdet(*words, "weighting.alpha="), "weighting.alpha=", "the value is missing")


def test_shipped_settings_need_no_model(msdet, monkeypatch):
    monkeypatch.setattr(model_checks, "check_model", lambda recipe: pytest.fail("MMDetection is imported"))
    for words in (["retinanet-r50-pafpn"], ["retinanet-r50-rlo", "--set", "weighting.n=3"]):
        assert msdet("run", *words, "-p", "tiny", "--dry-run")[0] == 0


def test_a_check_that_was_passed_is_remembered(msdet, monkeypatch):
    checked = []
    monkeypatch.setattr(model_checks, "check_model", lambda recipe: checked.append(recipe.name))
    words = ["run", "retinanet-r50-rlo", "-p", "tiny", "--dry-run", "--set"]
    for key in ("model.neck.num_outs=5", "model.neck.num_outs=5", "model.neck.num_outs=6", "weighting.n=5"):
        assert msdet(*words, key)[0] == 0
    assert len(checked) == 3


@pytest.mark.parametrize(
    ("words", "corrected"),
    [
        ("run retinanet-r50 weighting.alpha=3 -p tiny", "run retinanet-r50 -p tiny --set weighting.alpha=3"),
        ("run mine -p tiny --seeds 2", "run mine.yaml -p tiny --seeds 2"),
        ("ablate --alpha 5 10 -p tiny", "ablate --alpha 5,10 -p tiny"),
        ("ablate -p tiny --n 1 2 3 --seeds 2", "ablate -p tiny --n 1,2,3 --seeds 2"),
        ("run retinanet-r50 -p tiny --data-root here", "run retinanet-r50 -p tiny --data-root here --dataset coco"),
        ("runs --state dnoe", None),
    ],
)  # fmt: skip
def test_hints_repeat_what_was_typed(msdet, tmp_path, words, corrected):
    page(tmp_path / "mine.yaml", extends="retinanet-r50")
    for name in ("annotations/instances_train2017.json", "annotations/instances_val2017.json"):
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).touch()
    for name in ("here/train2017", "here/val2017"):
        (tmp_path / name).mkdir()
    hint = assert_one_line(msdet(*words.split()))
    assert hint.strip() == (f"try: msdet {corrected}" if corrected else "")


def test_mistakes_of_typing_have_the_same_form(msdet):
    for words in (["no-such"], ["run"], ["run", "x", "--sedes", "2"], ["run", "x", "--seeds", "two"]):
        hint = assert_one_line(msdet(*words))
        assert hint.strip().startswith("try: msdet") and "--help" in hint


def test_a_closed_pipe_is_no_error(tmp_path):
    command = [sys.executable, "-c", "from msdet_cli.main import main; main()", "ls", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", 0)


def test_interrupted_imports_end_quietly(tmp_path):
    """The worst moment for Ctrl-C: the command is known to Python, and its packages are being imported."""
    code = "import builtins, signal; from msdet_cli.main import main; old = builtins.__import__\n"
    code += "def new(name, *more):\n    name == 'typer' and signal.raise_signal(signal.SIGINT)\n"
    code += "    return old(name, *more)\nbuiltins.__import__ = new; main()"
    ended = subprocess.run([sys.executable, "-c", code, "ls"], cwd=tmp_path, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (130, b"")


def test_ascii_output_is_spelt_out(tmp_path):
    page(tmp_path / "mine.yaml", extends="retinanet-r50")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "own.yaml").write_text(
        "# 3 ± 1 α, grün\nextends: retinanet-r50\n", encoding="utf-8"
    )
    command = [sys.executable, "-c", "from msdet_cli.main import main; main()", "ls", "recipes"]
    kept = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, timeout=60)
    assert ended.returncode == 0
    assert b"3 +/- 1 alpha, grun" in ended.stdout


def in_a_process(folder, *words):
    home = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "COLUMNS": "200"}
    kept = {k: v for k, v in os.environ.items() if k != "MSDET_RESULTS"}
    command = [sys.executable, "-c", "from msdet_cli.main import main; main()", *words]
    return subprocess.run(
        command, cwd=folder, env={**kept, **home}, capture_output=True, text=True, timeout=120
    )


def test_contradicting_options_are_refused(msdet):
    assert_one_line(
        msdet("run", "retinanet-r50", "-p", "tiny", "--seed", "1", "--seeds", "2"), "--seed", "--seeds"
    )
    assert_one_line(msdet("ablate", "-p", "tiny"), "nothing to vary")
    code, _, err = msdet("run", "retinanet-r50", "--no-such-option")
    assert code == 2
    assert "--no-such-option" in err
