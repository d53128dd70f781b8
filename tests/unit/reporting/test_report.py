"""The paper's tables with runs beside: which run lands where, and what Markdown and CSV then say."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments.common.errors import UserError
from experiments.recipes import catalogue
from experiments.recipes import loading as recipes
from experiments.reporting import build_report, collect
from experiments.reporting.render.markdown import render_markdown
from experiments.reporting.render.records import render_csv
from experiments.reporting.tables.report_model import MeasuredTable, Report, TableRow
from experiments.runs.run_folder import RunFolder

from .conftest import MakeRun, in_contexts, others, published

BASE, RLO, AVW = "retinanet-r50", "retinanet-r50-rlo", "retinanet-r50-avw"
TABLES = [f"table{i}" for i in range(1, 6)]


def made(results: Path, *names: str) -> Report:
    return build_report(collect(results), names)


def by_id(table: MeasuredTable) -> dict[str, list[TableRow]]:
    lines: dict[str, list[TableRow]] = {}
    for line in table.rows:
        lines.setdefault(line.definition.id, []).append(line)
    return lines


def context(report: Report, name: str) -> dict[str, list[TableRow]]:
    (table,) = [t for t in in_contexts(report) if t.name == name]
    return by_id(table)


def measured(report: Report, name: str) -> dict[str, float]:
    """Row id to mean AP in a published table, for the rows that have runs."""
    (table,) = [t for t in published(report) if t.name == name]
    return {line.definition.id: line.group.metrics["AP"].mean for line in table.rows if line.group}


def cells(markdown: str) -> list[list[str]]:
    """The rows of all tables in a page, split where an unescaped bar stands."""
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def unmarked(cell: str) -> str:
    """A cell without the marks of the best and the second."""
    return re.sub(r"\*\*|</?u>", "", cell.replace(r"\*", "STAR")).replace("STAR", r"\*")


def table_files() -> list[tuple[str, dict]]:
    return [
        (name, yaml.safe_load(catalogue.find("table", name).read_text(encoding="utf-8"))) for name in TABLES
    ]


def test_every_published_value_stands_in_its_row(results: Path):
    report = made(results)
    assert [table.name for table in published(report)] == TABLES
    assert in_contexts(report) == others(report) == report.problems == []
    count = 0
    for table, (_, page) in zip(published(report), table_files()):
        shown = cells(render_markdown(table, results))
        for row in (row for block in page["blocks"] for row in block["rows"]):
            name = row["label"] + (r"\*" if row.get("reimplemented") else "")
            values = [f"{v:.1f}" for v in row["published"]]
            head = [name, row["backbone"], *values]
            (found,) = [r for r in shown if [unmarked(cell) for cell in r[: len(head)]] == head]
            assert found[-1] == ("no runs" if "recipe" in row else "no recipe yet")
            count += 1
    assert count == 19 + 4 + 6 + (1 + 5) + (1 + 5)  # the ones are the reference rows of tables 4 and 5


def test_published_differences_are_to_the_row_of_the_baseline(results: Path):
    table1, table2, table3, table4, _ = published(made(results))
    assert by_id(table1)["retinanet-rlo-r50"][0].published_difference == 0.8
    assert by_id(table1)["fcos-rlo-r101"][0].published_difference == 0.3
    assert by_id(table1)["fcos-r50"][0].published_difference is None
    assert by_id(table2)["retinanet-rlo-r50"][0].published_difference == 1.5
    assert by_id(table3)["largest"][0].published_difference == -0.1
    assert by_id(table4)["alpha-5"][0].published_difference == -0.2


def test_full_size_runs_fill_the_published_tables(make_run: MakeRun, results: Path):
    for seed, ap in enumerate((36.0, 36.2)):
        make_run(BASE, seed, {"AP": ap, "AP50": 55.0})
    for seed, ap in enumerate((36.7, 37.1, 36.9)):
        make_run(RLO, seed, {"AP": ap, "AP50": 56.0})
    make_run(AVW, 0, {"AP": 36.5})
    make_run(RLO, 0, {"AP": 36.4}, sets=("weighting.alpha=50",))
    make_run(RLO, 0, {"AP": 36.3}, sets=("weighting.actions=[uniform, largest]",))  # the order says nothing
    report = made(results)
    assert in_contexts(report) == others(report) == []
    for name, expected in (
        ("table1", {"retinanet-r50": 36.1, "retinanet-rlo-r50": 36.9}),
        ("table2", {}),
        ("table3", {"uniform": 36.1, "variance": 36.5, "largest-uniform": 36.3, "all": 36.9}),
        ("table4", {"baseline": 36.1, "alpha-50": 36.4, "alpha-100": 36.9}),
        ("table5", {"baseline": 36.1, "n-2": 36.9}),
    ):
        assert measured(report, name) == pytest.approx(expected)
    (line,) = by_id(published(report)[0])["retinanet-rlo-r50"]
    assert line.difference.value == pytest.approx(0.8)
    assert line.difference.error == pytest.approx(0.1)  # of the two seeds that both have: 0.7 and 0.9
    (row,) = [r for r in cells(render_markdown(published(report)[0], results)) if "**36.9 ± 0.2 (3)**" in r]
    assert row[2:5] == ["36.9", "**36.9 ± 0.2 (3)**", "0.0"]  # published, measured, their difference
    assert row[5:8] == ["+0.8", "+0.8 [-0.5, +2.1]", "too few seeds"]  # t of one degree of freedom: 12.706
    assert row[8] == "**56.0 ± 0.0**<br>56.3"  # AP50, the published one below


def test_tiny_runs_never_stand_beside_published_numbers(make_run: MakeRun, results: Path):
    for seed in range(2):
        make_run(BASE, seed, {"AP": 51.0 + seed}, profile="tiny")
        make_run(RLO, seed, {"AP": 53.0 + seed}, profile="tiny")
    report = made(results)
    assert all(line.group is None for table in published(report) for line in table.rows)
    assert all("measured" not in render_markdown(table, results) for table in published(report))
    for table in in_contexts(report):
        assert "profile tiny on shapes (NOT comparable with the published numbers)" in table.title
        text = render_markdown(table, results)
        assert "published |" not in text
        for value in {f"{v:.1f}" for line in table.rows for v in line.definition.published}:
            assert value not in " ".join(cell for row in cells(text) for cell in row[2:])
    frame = pd.read_csv(io.StringIO(render_csv(report.tables)))
    as_published = frame["published_AP"].notna() | frame["published_mAP"].notna()
    own = frame["measured_AP_mean"].notna()
    assert as_published.sum() == 41
    assert own.sum() == 2
    assert not (as_published & own).any()


def test_tiny_runs_land_in_every_row_that_their_recipe_is(make_run: MakeRun, results: Path):
    make_run(BASE, 0, {"AP": 51.0}, profile="tiny")
    run = make_run(RLO, 0, {"AP": 53.0}, profile="tiny")
    assert recipes.load_recipe(str(run.recipe)).weighting["alpha"] == 10
    assert [t.name for t in in_contexts(made(results))] == ["table1"]  # the others would show the same runs
    report = made(results, "table1", "table3", "table4", "table5")
    assert [t.name for t in in_contexts(report)] == ["table1", "table3", "table4", "table5"]
    for name, row in (
        ("table1", "retinanet-rlo-r50"),
        ("table3", "all"),
        ("table4", "alpha-100"),
        ("table5", "n-2"),
    ):
        (line,) = context(report, name)[row]
        assert (line.group.metrics["AP"].mean, line.difference.value) == (53.0, 2.0)
    assert set(context(report, "table1")) == {"retinanet-r50", "retinanet-rlo-r50"}
    assert set(context(report, "table4")) == {"baseline", "alpha-100"}
    notes = " ".join(next(t for t in in_contexts(report) if t.name == "table4").notes)
    assert "alpha = 100 ran as 10" in notes
    assert "4 rows of the table have no runs here" in notes


def test_a_reference_row_alone_makes_no_table(make_run: MakeRun, results: Path):
    make_run(BASE, 0, {"AP": 51.0}, profile="tiny")
    tables = made(results, "table1", "table2", "table3", "table4", "table5")
    assert [t.name for t in in_contexts(tables)] == ["table1", "table3"]


def test_a_literal_alpha_is_matched_by_what_was_run(make_run: MakeRun, results: Path):
    make_run(RLO, 0, {"AP": 53.0}, profile="tiny", sets=("weighting.alpha=50",))  # alpha = 500, scaled
    make_run(RLO, 0, {"AP": 54.0}, profile="tiny", sets=("weighting.alpha=7",))
    report = made(results)
    (line,) = context(report, "table4")["alpha-500"]
    assert line.group.metrics["AP"].mean == 53.0
    (baseline,) = context(report, "table4")["baseline"]  # shown although it was not run
    assert (baseline.group, baseline.remark, line.difference) == (None, "no runs", None)
    (other,) = others(report)
    assert other.group.metrics["AP"].mean == 54.0
    assert other.differs == "weighting.alpha: 7 (10)"


def test_a_recipe_by_another_name_is_the_same(make_run: MakeRun, results: Path):
    make_run(RLO, 0, {"AP": 36.9}, name="my-own-page")
    make_run(BASE, 0, {"AP": 36.0}, sets=("schedule.lr=0.01",))  # and by the same name not the same
    report = made(results)
    assert measured(report, "table1") == {"retinanet-rlo-r50": 36.9}
    assert [runs.differs for runs in others(report)] == ["schedule.lr: 0.01 (0.005)"]


def test_another_data_set_gives_tables_of_its_own(make_run: MakeRun, results: Path, tmp_path: Path):
    page = tmp_path / "cells.yaml"
    split = "{annotations: ids.txt, images: ''}"
    page.write_text(
        f"name: cells\nformat: voc\nroot: somewhere\nsplits: {{train: {split}, val: {split}}}\n",
        encoding="utf-8",
    )
    for profile, shift in ((None, 0), ("tiny", 5)):
        for recipe, value in ((BASE, 70.0), (RLO, 72.5)):
            run = recipes.load_recipe(recipe, profile, dataset=str(page))
            make_run(run, 0, {"mAP": value + shift})
    report = made(results, "table1", "table2")
    assert all(line.group is None for table in published(report) for line in table.rows)
    tables = {t.title.partition(" (")[0]: t for t in in_contexts(report)}
    assert set(tables) == {"Table 1, full size on cells", "Table 1, profile tiny on cells"}
    for title, value in (("Table 1, full size on cells", 72.5), ("Table 1, profile tiny on cells", 77.5)):
        assert tables[title].columns == ["mAP"]
        (line,) = by_id(tables[title])["retinanet-rlo-r50"]
        assert (line.group.metrics["mAP"].mean, line.difference.value) == (value, 2.5)


def test_two_data_sets_of_one_name_are_told_apart(make_run: MakeRun, results: Path):
    make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    make_run(RLO, 0, {"AP": 60.0}, profile="tiny", sets=("dataset.generate.size=200",))
    titles = [t.title for t in in_contexts(made(results, "table1"))]
    assert len(set(titles)) == 2
    assert all("shapes (definition " in title for title in titles)


def test_where_the_data_lie_makes_no_difference(make_run: MakeRun, results: Path):
    make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    make_run(RLO, 1, {"AP": 51.0}, profile="tiny", sets=("dataset.root=/elsewhere",))
    (line,) = context(made(results, "table1"), "table1")["retinanet-rlo-r50"]
    assert line.group.metrics["AP"].n == 2


def test_runs_that_failed_are_counted(make_run: MakeRun, results: Path):
    make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    make_run(RLO, 1, status="failed", profile="tiny", ways=())
    make_run(BASE, 0, status="failed", profile="tiny")
    lines = context(made(results), "table1")
    assert lines["retinanet-rlo-r50"][0].remark.startswith("1 done, 1 failed")
    assert lines["retinanet-r50"][0].remark.startswith("1 failed")
    assert lines["retinanet-rlo-r50"][0].difference is None


def test_a_recipe_that_cannot_be_read_is_a_problem_and_its_run_another(make_run: MakeRun, results: Path):
    run = make_run(RLO, 0, {"AP": 36.9}, sets=("weighting.gamma=0.5",))
    run.recipe.unlink()
    report = made(results)
    assert any("recipe.yaml" in sentence for sentence in report.problems)
    assert [runs.differs for runs in others(report)] == [""]


def test_different_commits_are_said(make_run: MakeRun, results: Path):
    make_run(BASE, 0, {"AP": 36.0}, commit="aaaa")
    assert not any("commits" in note for note in published(made(results))[0].notes)
    make_run(BASE, 1, {"AP": 36.0}, commit="bbbb")
    assert any("2 different commits" in note for note in published(made(results))[0].notes)


def test_csv_holds_the_numbers_themselves(make_run: MakeRun, results: Path):
    aps = [50.123456, 51.654321, 49.5]
    for seed, ap in enumerate(aps):
        make_run(RLO, seed, {"AP": ap, "APS": ap / 2}, profile="tiny")
    make_run(BASE, 4, {"AP": 48.25, "APS": 20.0}, profile="tiny")
    report = made(results, "table3")
    frame = pd.read_csv(io.StringIO(render_csv(report.tables)))
    as_published = frame[frame["context"] == "published"]
    assert as_published["published_AP"].tolist() == [36.1, 36.6, 36.3, 36.0, 36.4, 36.9]
    assert as_published["published_APL"].tolist() == [47.1, 49.0, 47.3, 46.2, 47.6, 48.5]
    own = frame[frame["context"] == "profile tiny on shapes"].set_index("id")
    row = own.loc["all"]
    assert row["measured_AP_mean"] == pytest.approx(pd.Series(aps).mean(), abs=1e-8)
    assert row["measured_AP_sd"] == pytest.approx(pd.Series(aps).std(), abs=1e-8)
    assert row["measured_APS_mean"] == pytest.approx(pd.Series(aps).mean() / 2, abs=1e-8)
    assert row["measured_difference"] == pytest.approx(pd.Series(aps).mean() - 48.25, abs=1e-8)
    assert (row["measured_AP_n"], row["done"], row["failed"], row["seeds"]) == (3, 3, 0, "0 1 2")
    assert pd.isna(own.loc["uniform", "measured_AP_sd"])
    assert own[["published_AP", "published_APL", "published_difference", "backbone"]].isna().all(axis=None)
    assert len(row["folders"].split()) == 3


def test_csv_of_one_table_is_as_wide_in_every_row(results: Path):
    rows = list(csv.reader(io.StringIO(render_csv(published(made(results))))))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(rows) == 1 + 41


def test_names_cannot_break_a_page(make_run: MakeRun, results: Path):
    make_run(RLO, 0, {"AP": 50.0}, name="<script>alert(1)| x [y](z)`", sets=("weighting.gamma=0.2",))
    make_run(RLO, 0, {"AP": 36.9}, name="a|b <i>")
    report = made(results)
    text = render_markdown(report.tables[-1], results)
    header, rule, *rows = cells(text)
    assert {len(row) for row in rows} == {len(header)} == {len(rule)}
    assert rows[-1][0] == r"&lt;script&gt;alert(1)\| x \[y\](z)\`"
    page = render_markdown(published(report)[0], results)
    assert {len(r) for r in cells(page)} == {14}
    for each in (text, page):
        shown = re.sub(r"`[^`]*`", "", each)  # code spans show it as it is
        assert "<script>" not in shown
        assert "<i>" not in shown


def test_links_lead_to_the_run_folders(make_run: MakeRun, results: Path, tmp_path: Path):
    make_run(RLO, 0, {"AP": 36.9}, name="with space")
    page = render_markdown(published(made(results, "table1"))[0], tmp_path / "report")
    (link,) = re.findall(r"\]\(([^)]*)\)", page)
    assert " " not in link
    target = (tmp_path / "report" / link.replace("%20", " ")).resolve()
    assert (target / "record.json").is_file()
    assert RunFolder(target).read().metrics == {"AP": 36.9}
    assert "seed*`" in page


def trace(run: RunFolder, *weights: tuple[float, ...]) -> None:
    """One row a level and interval, the weights of each interval given."""
    rows = [
        f"{t},{level},bbox_head,{w}"
        for t, each in enumerate(weights, start=1)
        for level, w in zip("abcde", each)
    ]
    run.trace.write_text("\n".join(["interval,level,head,weight", *rows]) + "\n", encoding="utf-8")


@pytest.mark.parametrize("profile", [None, "tiny"])
def test_static_runs_belong_to_the_controls_if_their_weights_are_the_measured_means(
    make_run: MakeRun, results: Path, profile: str | None
):
    ones, last = (1.0,) * 5, (1.0, 1.2, 1.4, 1.0, 1.0)
    trace(make_run(RLO, 0, {"AP": 36.9}, profile=profile), ones, (2.0, 1.5, 1.0, 1.0, 1.0))
    trace(make_run(RLO, 1, {"AP": 36.7}, profile=profile), ones, last)
    trace(
        make_run(RLO, 3, {"AP": 30.0}, profile=profile), last, last
    )  # seed 2 is missing: no mean takes it in
    by_level = [1.25, 1.175, 1.1, 1.0, 1.0]  # the means of seed 0, (1.5, 1.25, 1, 1, 1), and of seed 1
    for ap, weights in (
        (36.5, by_level),
        (36.3, [1.5, 1.25, 1, 1, 1]),  # from seed 0 alone, before there was a second
        (36.1, [1.105] * 5),
        (35.0, [1.106] * 5),
    ):
        sets = ("weighting.rule=static", f"weighting.weights={weights}")
        alpha = ("weighting.alpha=10",) if profile else ()
        make_run(BASE, 0, {"AP": ap}, profile=profile, sets=(*sets, *alpha))
    report = made(results)
    shown = context(report, "controls") if profile else by_id(published(report)[-1])
    found = {
        name: [line.group and line.group.metrics["AP"].mean for line in lines]
        for name, lines in shown.items()
    }
    assert sorted(found["static-level"]) == [36.3, 36.5]
    assert found["static-overall"] == [36.1]
    assert [runs.group.metrics["AP"].mean for runs in others(report)] == [35.0]
    assert report.problems == []


def test_a_table_that_the_paper_has_no_numbers_for(make_run: MakeRun, results: Path):
    make_run(BASE, 0, {"AP": 36.0})
    assert [table.name for table in published(made(results))] == TABLES  # it would show that run once more
    make_run(BASE, 0, {"AP": 35.0, "AP50": 50.0}, sets=("weighting.rule=dwa",))
    assert [table.name for table in published(made(results))] == [*TABLES, "controls"]
    (table,) = published(made(results, "controls"))
    assert not table.has_published
    page = render_markdown(table, results)
    assert "published" not in page
    (row,) = [r for r in cells(page) if r[0] == "Dynamic Weight Average"]
    assert row[1:5] == ["retinanet-r50", "35.0 ± - (1)", "-1.0", "too few seeds"]
    assert row[5] == "50.0 ± -"
    frame = pd.read_csv(io.StringIO(render_csv([table]))).set_index("id")
    assert frame.loc["dwa", "context"] == "full size"
    assert frame.loc["dwa", "measured_difference"] == -1.0
    assert frame.filter(like="published").isna().all(axis=None)
    assert frame.loc["static-level", "remark"] == "no runs"


def test_an_unknown_table_is_refused_with_the_nearest_name(results: Path):
    with pytest.raises(UserError, match="did you mean 'table1'"):
        made(results, "tabel1")


def test_a_table_of_ones_own_joins_the_report(
    make_run: MakeRun, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "recipes" / "tables"
    folder.mkdir(parents=True)
    row = f"{{id: fast, label: gamma 0.1, recipe: {RLO}, set: {{weighting.gamma: 0.1}}, published: [1.0]}}"
    (folder / "mine.yaml").write_text(
        f"name: mine\ntitle: My own\ncolumns: [AP]\nblocks: [{{rows: [{row}]}}]\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    make_run(RLO, 0, {"AP": 37.5}, sets=("weighting.gamma=0.1",))
    report = made(results)
    assert [table.name for table in published(report)] == [*TABLES, "mine"]
    assert measured(report, "mine") == {"fast": 37.5}
    assert others(report) == []


def test_asking_for_a_table_twice_shows_it_once(results: Path):
    assert [table.name for table in published(made(results, "table4", "table1", "table4"))] == [
        "table4",
        "table1",
    ]
