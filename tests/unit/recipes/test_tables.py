"""The tables: every published value, and the recipe behind every row."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.common.errors import UserError
from experiments.recipes.loading import compute_recipe_id, load_recipe
from experiments.recipes.tables import list_tables, load_table

# Typed from the paper, row by row: label's method, backbone, published values.
TABLE_1 = """
Guided Loss|50|37.0 56.5 39.2 20.3 40.5 49.5
FSAF|50|37.2 57.2 39.4 21.0 41.2 49.7
Foveabox*|50|36.5 56.0 38.6 20.5 39.9 47.7
Faster R-CNN + Balanced L1*|50|37.4 58.2 41.0 21.5 41.0 48.3
Faster R-CNN + PAFPN*|50|37.5 58.6 40.8 21.5 41.0 48.6
RetinaNet + GHM*|50|36.9 55.5 39.1 20.3 40.4 48.9
RetinaNet + GHM*|101|39.0 58.0 41.6 22.1 42.8 51.9
FCOS*|50|36.6 56.0 38.8 21.0 40.6 47.0
FCOS w/ RLO|50|37.0 56.3 39.1 21.0 40.8 47.5
FCOS*|101|39.0 58.2 42.1 22.7 43.3 50.3
FCOS w/ RLO|101|39.3 58.9 41.9 22.6 42.9 51.0
Faster R-CNN*|50|37.2 57.9 40.6 21.3 40.8 47.9
Faster R-CNN w/ RLO|50|37.7 58.8 40.7 22.1 41.1 48.2
Faster R-CNN*|101|39.2 59.6 42.9 22.5 43.3 51.4
Faster R-CNN w/ RLO|101|39.5 60.2 43.0 22.3 43.9 52.0
RetinaNet*|50|36.1 55.4 38.5 19.8 39.7 47.1
RetinaNet w/ RLO|50|36.9 56.3 39.1 20.8 40.1 48.5
RetinaNet*|101|38.2 57.4 40.7 22.2 42.5 49.9
RetinaNet w/ RLO|101|38.9 58.0 41.5 21.6 43.1 51.2
"""
TABLE_2 = [
    ("RetinaNet", 77.3),
    ("RetinaNet w/ RLO", 78.8),
    ("Faster R-CNN", 79.5),
    ("Faster R-CNN w/ RLO", 80.9),
]
TABLE_3 = [
    (["uniform"], [36.1, 55.4, 38.5, 19.8, 39.7, 47.1]),
    (["variance"], [36.6, 55.2, 39.0, 19.5, 40.3, 49.0]),
    (["smallest"], [36.3, 55.2, 38.9, 20.3, 40.1, 47.3]),
    (["largest"], [36.0, 54.8, 38.4, 20.3, 40.0, 46.2]),
    (["largest", "uniform"], [36.4, 55.3, 38.7, 20.0, 40.0, 47.6]),
    (["variance", "smallest", "largest", "uniform"], [36.9, 56.3, 39.1, 20.8, 40.1, 48.5]),
]
TABLE_4 = {5: 35.9, 50: 36.4, 100: 36.9, 200: 36.7, 500: 36.5}
TABLE_5 = {1: 36.5, 2: 36.9, 3: 36.3, 4: 36.0, 5: 35.9}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_table_1_as_published():
    table = load_table("table1")
    assert table.columns == ["AP", "AP50", "AP75", "APS", "APM", "APL"]
    shown = [
        f"{row.label}{'*' if row.reimplemented else ''}|{row.backbone.removeprefix('ResNet-')}|"
        f"{' '.join(f'{value:.1f}' for value in row.published)}"
        for row in table.rows()
    ]
    assert shown == TABLE_1.strip().splitlines()
    for row in table.rows():
        if row.label.endswith(" w/ RLO"):
            baseline = table.row(row.baseline)
            assert (baseline.label, baseline.backbone) == (row.label.removesuffix(" w/ RLO"), row.backbone)
        else:
            assert row.baseline is None


def test_table_2_as_published():
    table = load_table("table2")
    assert table.columns == ["mAP"]
    assert [(row.label, row.published) for row in table.rows()] == [
        (label, [value]) for label, value in TABLE_2
    ]
    assert [table.row(row.baseline).label for row in table.rows() if row.baseline] == [
        "RetinaNet",
        "Faster R-CNN",
    ]


def test_table_3_as_published_and_each_row_with_its_actions():
    table = load_table("table3")
    assert [row.published for row in table.rows()] == [values for _, values in TABLE_3]
    recipes = [load_recipe(row.recipe, overrides=row.set) for row in table.rows()]
    assert recipes[0].weighting["rule"] == "uniform"
    assert recipes[1].weighting["rule"] == "avw"
    assert [recipe.weighting["actions"] for recipe in recipes[2:]] == [actions for actions, _ in TABLE_3[2:]]
    assert all(row.baseline == "uniform" for row in table.rows() if row.id != "uniform")
    assert "inferred" in table.note


@pytest.mark.parametrize(
    ("name", "option", "published"), [("table4", "alpha", TABLE_4), ("table5", "n", TABLE_5)]
)
def test_tables_4_and_5_as_published_and_each_row_with_its_value(name: str, option: str, published: dict):
    rows = list(load_table(name).rows())
    reference, rows = rows[0], rows[1:]
    assert (reference.reference, reference.recipe, reference.published) == (True, "retinanet-r50", [36.1])
    assert [row.published for row in rows] == [[value] for value in published.values()]
    assert [load_recipe(row.recipe, overrides=row.set).weighting for row in rows] == [
        {**load_recipe("retinanet-r50-rlo").weighting, option: value} for value in published
    ]
    assert all(row.baseline == reference.id and not row.reference for row in rows)


def test_figure_4_has_the_five_methods_and_no_numbers():
    table = load_table("fig4")
    assert not table.has_published
    assert [row.label for row in table.rows()] == [
        "RetinaNet",
        "RetinaNet w/ RLO",
        "Balanced FPN",
        "PAFPN",
        "AugFPN",
    ]
    assert {row.baseline for row in table.rows()} == {None, "baseline"}


def test_the_controls_have_their_rules():
    rows = {row.id: row for row in load_table("controls").rows()}
    assert {name: load_recipe(row.recipe, "tiny", overrides=row.overrides()).weighting["rule"]
            for name, row in rows.items()} == {
        "uniform": "uniform", "avw": "avw", "rlo": "rlo", "dwa": "dwa", "uncertainty": "uncertainty",
        "rlo-gamma-0": "rlo", "random": "random", "static-level": "static", "static-overall": "static",
    }  # fmt: skip
    rlo, control = (
        load_recipe(rows[name].recipe, overrides=rows[name].set) for name in ("rlo", "rlo-gamma-0")
    )
    assert control.weighting == {**rlo.weighting, "gamma": 0.0}
    assert [(rows[name].mean_weights_of, rows[name].mean) for name in ("static-level", "static-overall")] == [
        ("rlo", "level"),
        ("rlo", "overall"),
    ]
    weights = load_recipe("retinanet-r50", overrides=rows["static-level"].overrides([1.5, 1])).weighting[
        "weights"
    ]
    assert weights == [1.5, 1.0]
    others = [load_recipe(row.recipe, overrides=row.overrides()).model_dump() for row in rows.values()]
    for other in others:
        del other["name"], other["weighting"]
    assert all(other == others[0] for other in others)  # they differ in nothing else


@pytest.mark.parametrize("name", list_tables())
def test_every_row_names_a_recipe_that_can_be_run(name: str):
    for row in load_table(name).rows():
        for profile in (None, "tiny"):
            recipe = load_recipe(row.recipe, profile, overrides=row.overrides())
        assert recipe.model.startswith("mmdet:")


def test_rows_of_different_tables_share_their_runs():
    ids = {
        compute_recipe_id(load_recipe(row.recipe, overrides=row.set))
        for number, row_id in (("1", "retinanet-rlo-r50"), ("3", "all"), ("4", "alpha-100"), ("5", "n-2"))
        for row in [load_table(f"table{number}").row(row_id)]
    }
    assert ids == {compute_recipe_id(load_recipe("retinanet-r50-rlo"))}


def page(text: str) -> str:
    Path("t.yaml").write_text(text, encoding="utf-8")
    return "t.yaml"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{id: a, label: A, published: [1.0]}", "row 'a' has 1 values for 2 columns"),
        ("{id: b, label: A, published: [1.0, 2.0]}", "row 'b' is given twice"),
        ("{id: a, label: A, published: [1.0, 2.0], baseline: c}", "its baseline 'c' is not another row"),
        ("{id: a, label: A, published: [1.0, 2.0], set: {x: 1}}", "has `set` but no recipe"),
        ("{id: a, label: A, mean_weights_of: b}", "row 'a' has `mean_weights_of` but no recipe"),
        ("{id: a, label: A, recipe: r, mean_weights_of: b}", "row 'a': mean_weights_of: 'b' is not a row"),
        ("{id: a, label: A, recipe: r, mean_weights_of: a}", "row 'a': mean_weights_of: 'a' is not a row"),
        ("{id: a, label: A, mean: both}", "blocks[0].rows[1].mean: 'both' is not allowed"),
        (
            "{id: a, label: A, publishd: [1.0, 2.0]}",
            "blocks[0].rows[1].publishd: unknown key; did you mean 'published'?",
        ),
        ("{id: a, label: A, published: [1.0, x]}", "blocks[0].rows[1].published[1]: 'x' is not allowed"),
    ],
)
def test_a_wrong_table_says_where(row: str, expected: str):
    good = "{id: b, label: B, published: [3.0, 4.0]}"
    text = f"name: t\ntitle: T\ncolumns: [x, y]\nblocks:\n  - rows:\n    - {good}\n"
    assert len(list(load_table(page(text)).rows())) == 1
    with pytest.raises(UserError) as caught:
        load_table(page(f"{text}    - {row}\n"))
    assert caught.value.message.startswith("table t.yaml: ")
    assert expected in caught.value.message
