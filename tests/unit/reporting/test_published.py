"""Every published cell against a list of the paper's numbers that was typed by somebody else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from experiments.recipes.loading import load_recipe
from experiments.recipes.tables import Row
from experiments.reporting import build_report, collect
from experiments.reporting.tables.report_model import MeasuredTable

from .conftest import published

FACTS = Path(__file__).resolve().parents[4] / "shared" / "paper" / "tables.yaml"

pytestmark = pytest.mark.skipif(not FACTS.exists(), reason=f"no {FACTS}")


@pytest.fixture(scope="module")
def facts() -> dict:
    return yaml.safe_load(FACTS.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MeasuredTable]:
    report = build_report(collect(tmp_path_factory.mktemp("empty")))
    return {table.name: table for table in published(report)}


def own_rows(table: MeasuredTable) -> list[Row]:
    return [line.definition for line in table.rows if not line.definition.reference]


def weighting(row: Row) -> dict:
    return load_recipe(row.recipe or "", overrides=row.overrides()).weighting


def test_columns(facts: dict, tables: dict[str, MeasuredTable]):
    assert {name: t.columns for name, t in tables.items()} == {n: facts[n]["columns"] for n in tables}


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_detectors(name: str, facts: dict, tables: dict[str, MeasuredTable]):
    blocks = [
        facts[name][key] for key in ("state_of_the_art", "baseline_and_rlo", "rows") if key in facts[name]
    ]
    expected = [
        (f["method"], f["backbone"], f.get("reimplemented", False), f["values"]) for b in blocks for f in b
    ]
    found = [(r.label, r.backbone, r.reimplemented, r.published) for r in own_rows(tables[name])]
    assert found == expected
    assert len(tables[name].blocks) == len(blocks)


def test_actions(facts: dict, tables: dict[str, MeasuredTable]):
    rows = own_rows(tables["table3"])
    assert [row.published for row in rows] == [fact["values"] for fact in facts["table3"]["rows"]]
    for row, fact in list(zip(rows, facts["table3"]["rows"]))[2:]:  # uniform and AVW are rules of their own
        assert set(weighting(row)["actions"]) == set(fact["actions"])


@pytest.mark.parametrize(("name", "key"), [("table4", "alpha"), ("table5", "n")])
def test_ablations(name: str, key: str, facts: dict, tables: dict[str, MeasuredTable]):
    found = [(weighting(row)[key], row.published) for row in own_rows(tables[name])]
    assert found == [(fact[key], fact["values"]) for fact in facts[name]["rows"]]
