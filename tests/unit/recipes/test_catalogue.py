"""Finding and reading YAML: where names are looked for, and what every kind of bad file says."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from experiments.common.errors import UserError
from experiments.recipes import catalogue, yaml_format
from experiments.recipes import loading as recipes


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of this works from any folder."""
    monkeypatch.chdir(tmp_path)


def page(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def message(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_shipped_pages_are_found_by_name():
    assert {"retinanet-r50", "retinanet-r50-avw", "retinanet-r50-rlo"} <= set(catalogue.list_pages("recipe"))
    assert "tiny" in catalogue.list_pages("profile")
    assert {"coco", "shapes"} <= set(catalogue.list_pages("dataset"))
    assert [f"table{i}" for i in range(1, 6)] == [
        n for n in catalogue.list_pages("table") if n.startswith("table")
    ]
    for kind in catalogue.FOLDERS:
        for name, path in catalogue.list_pages(kind).items():
            assert catalogue.find(kind, name) == path
            assert catalogue.read_header_comment(path), f"{path} does not say what it is"


def test_recipes_in_the_working_directory_come_first(tmp_path: Path):
    mine = page(tmp_path / "recipes" / "retinanet-r50.yaml", "model: x.py")
    assert catalogue.find("recipe", "retinanet-r50") == mine
    assert catalogue.list_pages("recipe")["retinanet-r50"] == mine
    assert catalogue.find("dataset", "coco").parent != tmp_path / "recipes" / "datasets"
    other = page(tmp_path / "recipes" / "datasets" / "coco.yml", "name: coco")
    assert catalogue.find("dataset", "coco") == other


def test_a_path_is_a_path_and_counts_from_the_page_it_stands_in(tmp_path: Path):
    here = page(tmp_path / "a.yaml", "x: 1")
    there = page(tmp_path / "deep" / "a.yaml", "x: 2")
    assert catalogue.find("recipe", "a.yaml") == here
    assert catalogue.find("recipe", str(there)) == there
    assert catalogue.find("recipe", "./a.yaml", tmp_path / "deep") == there
    assert catalogue.find("recipe", "a", tmp_path / "deep") == there  # a sibling's name
    assert (
        catalogue.find("recipe", "deep/a.yaml", tmp_path / "deep") == there
    )  # from here, as not found there


def test_what_is_not_found_names_the_nearest():
    assert message(catalogue.find, "recipe", "retinanet-r50-rl") == (
        "recipe 'retinanet-r50-rl' not found; did you mean 'retinanet-r50-rlo'?"
    )
    with pytest.raises(UserError) as caught:
        catalogue.find("dataset", "cocoo")
    assert caught.value.hint == "msdet ls datasets"
    assert "no such file; did you mean the recipe 'retinanet-r50'?" in message(
        catalogue.find, "recipe", "retinanet-r50.yaml"
    )
    assert "a folder" in message(catalogue.find, "recipe", f".{os.sep}")
    for nothing in ("", "  ", None, 5):
        assert "is not a name or a path" in message(catalogue.find, "recipe", nothing)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- a\n- b\n", "is a list; it must be a mapping"),
        ("just words", "is text or a single value; it must be a mapping"),
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3: not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3: not valid YAML: the key 'a' is given twice"),
        ("a:\n  b: {c: 1, c: 2}\n", "line 2: not valid YAML: the key 'c' is given twice"),
        ("a: 1\n\tb: 2\n", "line 2: not valid YAML"),
        ("a: 1\n1: 2\n", "line 2: not valid YAML: a key is not text"),
        ("on: 2\n", "line 1: not valid YAML: a key is not text"),
        ("? [a, b]\n: 2\n", "a key is not text"),
        ("a: &x [*x]\n", "recursive"),
        ("a: &x {b: *x}\n", "recursive"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "line 2: not valid YAML"),
        ("a: \x07\n", "not valid YAML"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "1" * 5000, "not valid YAML"),
    ],
)
def test_bad_yaml_is_one_line_with_its_place(tmp_path: Path, text: str, expected: str):
    said = message(catalogue.read_yaml, page(tmp_path / "bad.yaml", text))
    assert said.startswith("bad.yaml")
    assert expected in said


def test_files_that_cannot_be_read(tmp_path: Path):
    assert "no such file" in message(catalogue.read_yaml, tmp_path / "none.yaml")
    assert "cannot be read" in message(catalogue.read_yaml, tmp_path)
    (tmp_path / "latin.yaml").write_bytes("a: gr\xfcn".encode("latin-1"))
    assert "not a text file in UTF-8" in message(catalogue.read_yaml, tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-2e+3", -2000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("0.25", 0.25),
        ("1.5e-3", 1.5e-3),
        (".inf", float("inf")),
        ("1", 1),
        ("-1", -1),
        ("1e", "1e"),
        ("e5", "e5"),
        ("1.2.3", "1.2.3"),
        ("-", "-"),
        ("2026-01-31", "2026-01-31"),
        ("yes", True),
        ("null", None),
        ("", None),
    ],
)
def test_numbers_are_numbers(text: str, value: object):
    read = yaml_format.parse_yaml(f"a: {text}" if text != "-" else "a: '-'", "here")["a"]
    assert read == value
    assert type(read) is type(value)


def test_merge_keys_and_anchors_still_work():
    text = "a: &base {x: 1, y: 2}\nb: {<<: *base, y: 3}\n"
    assert yaml_format.parse_yaml(text, "here")["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("of", ["{{<<: [{}]}}", "[{}]", "{{a: [{}]}}"])
def test_a_page_that_stands_for_billions_of_values_is_refused_quickly(of: str, tmp_path: Path):
    first = "a0: &a0 {x: 1}\n"
    text = first + "".join(f"a{n}: &a{n} {of.format(', '.join([f'*a{n - 1}'] * 9))}\n" for n in range(1, 30))
    begun = time.monotonic()
    said = message(catalogue.read_yaml, page(tmp_path / "bomb.yaml", text))
    assert said.endswith("it holds more than 100000 values, aliases written out")
    with pytest.raises(yaml.YAMLError, match="100000"):
        yaml_format.parse_quickly(text)
    assert time.monotonic() - begun < 5


def test_what_is_written_reads_back_equal():
    content = {
        "a": [1e-05, 1.0, 10**6, "1e-5", "1.", "2026-01-31", "on", "null", "", "a: b"],
        "b": {"c": None},
    }
    content |= {"list": [{"d": [True, float("inf")]}, []], "text": "ä\nb", "same": content["a"]}
    text = yaml.dump(content, Dumper=yaml_format.PlainDumper, sort_keys=False)
    assert yaml_format.parse_yaml(text, "here") == content


def test_header_comment_ends_where_the_content_begins(tmp_path: Path):
    path = page(tmp_path / "a.yaml", "# What it is\n#   how to run it\n#\nmodel: x.py\n# not this\n")
    assert catalogue.read_header_comment(path) == "What it is\n  how to run it"
    assert catalogue.read_header_comment(page(tmp_path / "b.yaml", "model: x.py\n")) == ""


def test_a_data_set_by_name_path_and_mapping(tmp_path: Path):
    coco = catalogue.load_dataset("coco")
    assert (coco.format, coco.splits["train"][0].images) == ("coco", "train2017")
    text = (
        "name: mine\nformat: voc\nroot: d\nsplits: {train: {annotations: a.txt}, val: {annotations: b.txt}}\n"
    )
    from_file = catalogue.load_dataset("sub/mine.yaml", page(tmp_path / "sub" / "mine.yaml", text).parent)
    assert from_file == catalogue.load_dataset(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"splits": {"trian": {}}}, "data set: splits.trian: unknown key; did you mean 'train'?"),
        (
            {"splits": {"train": {"imges": "x"}}},
            "data set: splits.train.imges: unknown key; did you mean 'images'?",
        ),
        (
            {"splits": {"train": [{"anotations": "a"}]}},
            "data set: splits.train[0].anotations: unknown key; did you mean 'annotations'?",
        ),
        ({"formta": "coco"}, "data set: formta: unknown key; did you mean 'format'?"),
        ({"format": "coko"}, "data set: format: 'coko' is not allowed: input should be 'coco' or 'voc'"),
        ({"name": None}, "data set: name: None is not allowed: input should be a valid string"),
        ({"classes": ["a", "a"]}, "data set: classes: a class is named twice"),
        ({"splits": {"train": {"annotations": "a"}}}, "data set: splits.val is missing"),
        ({"splits": 5}, "data set: splits: must be a mapping, not 5"),
    ],
)
def test_a_wrong_data_set_says_where(change: dict, expected: str):
    good = {
        "name": "x",
        "format": "coco",
        "root": "r",
        "splits": {"train": {"annotations": "a"}, "val": {"annotations": "b"}},
    }
    assert catalogue.load_dataset(good).name == "x"
    assert message(catalogue.load_dataset, {**good, **change}) == expected


def test_reading_recipes_needs_neither_torch_nor_pandas():
    heavy = "{'torch', 'pandas', 'numpy', 'matplotlib', 'mmengine'}"
    code = f"""
import sys
from experiments.recipes import loading, tables
loading.load_recipe("retinanet-r50-rlo", "tiny"); tables.load_table('table1')
sys.exit(', '.join({heavy} & set(sys.modules)) or 0)
"""
    root = Path(catalogue.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_both_parsers_read_the_same_from_every_shipped_page():
    pages = sorted(catalogue.find_shipped().rglob("*.yaml"))
    assert len(pages) > 40
    for shipped in pages:
        text = shipped.read_text(encoding="utf-8")
        assert yaml_format.parse_quickly(text) == catalogue.parse_yaml(text, shipped.name), shipped


@pytest.mark.parametrize("name", ["retinanet-r50-rlo", "faster-rcnn-r50", "retinanet-r50-ghm"])
def test_a_resolved_page_loads_quickly_and_equal(tmp_path: Path, name: str):
    made = recipes.load_recipe(name, "tiny")
    written = page(tmp_path / "recipe.yaml", recipes.dump(made))
    assert recipes.load_resolved(written) == recipes.load_recipe(str(written)) == made


@pytest.mark.parametrize(
    "line", ["extends: fcos-r50", "init_from: some.pth", "alhpa: 5", "model: own.py", "dataset: coco", "schedule: 5",
             "amp: int8", "amp: !!bool x", "["],
)  # fmt: skip
def test_any_other_page_is_left_to_load_recipe(tmp_path: Path, line: str):
    text = recipes.dump(recipes.load_recipe("retinanet-r50-rlo"))
    kept = [old for old in text.splitlines() if not old.startswith(line.partition(":")[0] + ":")]
    if line.startswith(("dataset", "schedule")):
        kept = [old for old in kept if not old.startswith(" ")]
    other = page(tmp_path / "recipe.yaml", "\n".join([*kept, line]) + "\n")
    assert recipes.load_resolved(other) is None
    assert recipes.load_resolved(tmp_path / "absent.yaml") is None
