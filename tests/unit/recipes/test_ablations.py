"""Tables of ablations: which rows they have, what they mean, and what becomes of a file that people have edited."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments.common.errors import UserError
from experiments.recipes import catalogue
from experiments.recipes.ablations import Ablation, extend_ablation
from experiments.recipes.loading import compute_recipe_id, load_recipe
from experiments.recipes.table_files import save_table, update_table
from experiments.recipes.tables import Table, load_table

RECIPE = "retinanet-r50-rlo"
RESULTS = Path("results")
ALPHA = "weighting.alpha"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ablate(recipe: str = RECIPE, profile: str | None = "tiny", **more: Any) -> Table:
    """Return the table as it is read back from its file."""
    wanted = Ablation(recipe, profile=profile, **more)
    table = extend_ablation(wanted, RESULTS)
    assert (
        update_table(table.path, lambda: extend_ablation(wanted, RESULTS)).model_dump() == table.model_dump()
    )
    read = load_table(str(table.path))
    assert read.model_dump() == table.model_dump()
    return read


def rows(table: Table) -> list[list[tuple[str, str | None]]]:
    return [[(row.label + (" own" if row.own else ""), row.baseline) for row in b.rows] for b in table.blocks]


def test_block_has_sorted_values_with_the_recipes_own_and_uniform_once():
    table = ablate(axes={ALPHA: [100, 5, 20], "weighting.n": [1]}, shared={"schedule.iterations": 30})
    assert table.path == Path("results/ablations/retinanet-r50-rlo-alpha-n.yaml").resolve()
    assert rows(table) == [
        [("uniform (baseline)", "alpha-10")],
        [("alpha = 5", "alpha-10"), ("alpha = 10 own", None), ("alpha = 20", "alpha-10"),
         ("alpha = 100", "alpha-10")],
        [("n = 1", "n-2"), ("n = 2 own", None)],
    ]  # fmt: skip
    assert table.title == "Ablation of retinanet-r50-rlo, profile tiny on shapes, schedule.iterations = 30"
    expected = [["weighting.rule=uniform"], *[[f"{ALPHA}={a}"] for a in (5, 10, 20, 100)],
                *[[f"weighting.n={n}"] for n in (1, 2)]]  # fmt: skip
    assert [table.recipe_of(row) for row in table.rows()] == [
        load_recipe(RECIPE, "tiny", ["schedule.iterations=30", *sets]) for sets in expected
    ]


def test_values_hold_as_typed_under_the_tables_profile_and_are_scaled_by_the_commands():
    under, full = ablate(axes={ALPHA: [50]}), ablate(axes={ALPHA: [50]}, profile=None, name="full")
    alphas = [under.recipe_of(row).weighting["alpha"] for row in under.blocks[1].rows]
    assert alphas == [10, 50]
    assert [full.recipe_of(row).weighting["alpha"] for row in full.blocks[1].rows] == [50, 100]
    assert [full.recipe_of(row, profile="tiny").weighting["alpha"] for row in full.blocks[1].rows] == [5, 10]
    Path("other.yaml").write_text(catalogue.find("profile", "tiny").read_text())
    with pytest.raises(UserError, match=r"its rows run under profile tiny, not other\.yaml"):
        under.recipe_of(under.blocks[0].rows[0], profile="other.yaml")
    other = ablate(axes={ALPHA: [50]}, profile="./other.yaml", name="other")
    assert other.profile == "../../other.yaml"
    assert other.recipe_of(other.blocks[1].rows[1], profile="./other.yaml").weighting["alpha"] == 50


def test_grid_has_all_combinations_and_the_recipe():
    table = ablate(axes={ALPHA: [20, 5], "weighting.n": [3, 1]}, is_grid=True)
    assert [row.label for row in table.blocks[1].rows] == [
        "alpha = 5, n = 1", "alpha = 5, n = 3", "alpha = 10, n = 2", "alpha = 20, n = 1", "alpha = 20, n = 3",
    ]  # fmt: skip
    assert [row.own for row in table.blocks[1].rows] == [False, False, True, False, False]


def test_more_values_extend_the_file_and_leave_edits_and_comments():
    path = ablate(axes={ALPHA: [5, 100]}).path
    text = path.read_text()
    for before, after in (
        ("label: alpha = 5\n", "label: five  # mine\n"),
        ("- title: alpha\n", "# the interval\n- title: Length of the interval\n"),
        ("  - id: alpha-100\n", "  # a long one\n  - id: alpha-100\n"),
        ("title: Ablation of", "title: My ablation of"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    path.write_text(text)
    assert ablate(axes={ALPHA: [5]}).path.read_text() == text  # nothing to add, nothing written

    extended = ablate(axes={ALPHA: [200, 7]})
    assert [row.label for row in extended.blocks[1].rows] == [
        "five", "alpha = 7", "alpha = 10", "alpha = 100", "alpha = 200",
    ]  # fmt: skip
    lines = path.read_text().splitlines()
    added = [line for line in lines if line not in text.splitlines()]
    assert added == ["  - id: alpha-7", "    label: alpha = 7", "      weighting.alpha: 7",
                     "  - id: alpha-200", "    label: alpha = 200", "      weighting.alpha: 200"]  # fmt: skip
    assert "  # a long one\n  - id: alpha-100\n" in path.read_text()


def test_file_in_another_style_is_written_anew_with_its_first_comment():
    path = ablate(axes={ALPHA: [5]}).path
    table = load_table(str(path))
    rows_in_one_line = ", ".join(str(row.model_dump(exclude_defaults=True)) for row in table.rows())
    path.write_text(
        "# Mine\nname: m\ntitle: M\ncolumns: [AP]\nprofile: tiny\nblocks:\n"
        f"- {{rows: [{rows_in_one_line.replace('True', 'true')}]}}\n"
    )
    assert [row.label for row in ablate(axes={ALPHA: [7]}).blocks[0].rows] == [
        "uniform (baseline)", "alpha = 5", "alpha = 7", "alpha = 10",
    ]  # fmt: skip
    assert path.read_text().startswith("# Mine\nname: m\n")


def test_deleted_rows_do_not_come_back():
    table = ablate(axes={ALPHA: [5, 20]})
    table.blocks = [table.blocks[1]]
    save_table(table)
    assert [len(block.rows) for block in ablate(axes={ALPHA: [7]}).blocks] == [4]


def test_mark_follows_the_recipe():
    Path("mine.yaml").write_text(f"extends: {RECIPE}\nweighting: {{alpha: 40}}\n")
    assert [(row.label, row.own) for row in ablate("mine.yaml", None, axes={ALPHA: [5]}).blocks[1].rows] == [
        ("alpha = 5", False), ("alpha = 40", True),
    ]  # fmt: skip
    Path("mine.yaml").write_text(f"extends: {RECIPE}\nweighting: {{alpha: 50}}\n")
    assert [(row.label, row.own) for row in ablate("mine.yaml", None, axes={ALPHA: [5]}).blocks[1].rows] == [
        ("alpha = 5", False), ("alpha = 40", False), ("alpha = 50", True),
    ]  # fmt: skip


def test_another_context_gets_another_file():
    first = ablate(axes={ALPHA: [5]})
    names = [
        ablate(axes={ALPHA: [5]}, profile=None).name,
        ablate(axes={ALPHA: [5]}, shared={"schedule.iterations": 30}).name,
        ablate(axes={ALPHA: [5]}, profile=None, dataset="coco").name,
    ]
    assert names == [f"{first.name}-{part}" for part in ("full-size", "iterations-30", "full-size-coco")]
    with pytest.raises(
        UserError, match=r"retinanet-r50-rlo-alpha\.yaml: its rows have something else in common: full"
    ):
        ablate(axes={ALPHA: [5]}, profile=None, name=first.name)
    with pytest.raises(UserError, match="--name: 'table3' is not allowed"):
        ablate(axes={ALPHA: [5]}, name="table3")


@pytest.mark.parametrize(
    ("against", "expected"),
    [("recipe", ["alpha-10", "alpha-10", None]), ("baseline", [None, "baseline", "baseline"]),
     ("alpha = 5", ["alpha-5", None, "alpha-5"])],
)  # fmt: skip
def test_rows_are_compared_with_what_is_asked_for(against: str, expected: list[str | None]):
    ablate(axes={ALPHA: [5]})
    assert [row.baseline for row in ablate(axes={ALPHA: [5]}, against=against).rows()] == expected
    later = ablate(axes={ALPHA: [7]})  # a row that is added is compared with what the others are
    assert later.row("alpha-7").baseline == (expected[1] or "alpha-5")
    with pytest.raises(UserError, match="--against: 'alpha-8' is no row; did you mean"):
        ablate(axes={ALPHA: [5]}, against="alpha-8")


def test_own_files_are_found_from_anywhere_and_after_moving_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Path("here/recipes/datasets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    Path("mine.yaml").write_text(f"extends: {RECIPE}\nweighting: {{gamma: 0.2}}\n")
    shapes = catalogue.find("dataset", "shapes").read_text()
    Path("recipes/datasets/few.yaml").write_text(re.sub("train_images: .*", "train_images: 4", shapes))
    table = ablate("mine.yaml", axes={ALPHA: [5]}, dataset="few")
    wanted = [compute_recipe_id(table.recipe_of(row)) for row in table.rows()]
    alone = load_recipe("mine.yaml", "tiny", [f"{ALPHA}=5"], dataset="few")
    assert wanted[1] == compute_recipe_id(alone)
    shutil.move(tmp_path / "here", tmp_path / "there")
    monkeypatch.chdir("/")
    moved = load_table(str(tmp_path / "there/results/ablations/mine-alpha.yaml"))
    assert [compute_recipe_id(moved.recipe_of(row)) for row in moved.rows()] == wanted


def test_keys_of_mmengine_have_the_recipe_as_it_stands_first():
    key = "model.bbox_head.loss_cls.gamma"
    table = ablate(axes={key: [1.5, 2.5]})
    assert [row.label for row in table.blocks[1].rows] == ["as it stands", f"{key} = 1.5", f"{key} = 2.5"]
    assert [compute_recipe_id(table.recipe_of(row)) == compute_recipe_id(load_recipe(RECIPE, "tiny"))
            for row in table.blocks[1].rows] == [True, False, False]  # fmt: skip


def test_data_sets_are_values_and_one_in_the_page_stands_as_it_is():
    page = {
        "extends": RECIPE,
        "dataset": {**catalogue.load_dataset("shapes").model_dump(), "name": "mine", "repeat": 2},
    }
    Path("mine.yaml").write_text(json.dumps(page))
    for recipe, labels in (
        ("retinanet-r50-rlo", ["dataset = coco", "dataset = shapes"]),
        ("mine.yaml", ["as it stands", "dataset = shapes"]),
    ):
        table = ablate(recipe, None, axes={"dataset": ["shapes"]})
        assert [row.label for row in table.blocks[1].rows] == labels


def test_profile_that_only_the_recipe_has_is_kept_by_name():
    Path("mine.yaml").write_text(f"extends: {RECIPE}\nprofiles: {{quick: {{schedule: {{epochs: 1}}}}}}\n")
    table = ablate("mine.yaml", "quick", axes={ALPHA: [5]})
    assert table.profile == "quick"
    assert {table.recipe_of(row, profile="quick").schedule.epochs for row in table.rows()} == {1}


def test_uniform_row_is_there_with_shared_options_that_it_lacks_and_not_beside_itself():
    table = ablate(axes={ALPHA: [5]}, shared={"weighting.gamma": 0.1})
    uniform = table.recipe_of(table.row("baseline"))
    assert compute_recipe_id(uniform) == compute_recipe_id(load_recipe("retinanet-r50", "tiny"))
    assert len(ablate("retinanet-r50", axes={"schedule.lr": [0.1]}).blocks) == 1
    rules = ablate(axes={"weighting.rule": ["uniform", "avw"]})
    assert [[row.label for row in block.rows] for block in rules.blocks] == [
        ["rule = avw", "rule = rlo", "uniform (baseline)"]
    ]
