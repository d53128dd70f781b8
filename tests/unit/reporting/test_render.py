"""The HTML page and the LaTeX: every published cell, the marks, the links, and what no name can break."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import urllib.parse
from datetime import datetime, timezone
from pathlib import Path

import pytest
import yaml
from scipy import stats

from experiments.recipes import catalogue
from experiments.reporting import Report, build_report, collect
from experiments.reporting.render import text as report_text
from experiments.reporting.render.claims import count_verdicts, find_claims
from experiments.reporting.render.latex import (
    escape_tex,
    make_comment,
    render_latex_report,
    render_latex_table,
)
from experiments.reporting.render.page import render_html_page
from experiments.reporting.tables.sections import Grid, Picture, Section

from .conftest import MakeRun, published, run_maker
from .pages import HtmlCell, HtmlTable, Page, latex_rows, plain

BASE, RLO, AVW = "retinanet-r50", "retinanet-r50-rlo", "retinanet-r50-avw"
TABLES = [f"table{i}" for i in range(1, 6)]
NASTY = r"<script>alert('1')</script> & 5 % of $x_1^2$ {#~\} -- \input{x}"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SVG = "<svg xmlns='http://www.w3.org/2000/svg'><title>a</title></svg>"
PICTURE = Picture("curve of <b>", NASTY, "a curve", PNG, SVG)
SECTION = Section(
    "Curves & more", [NASTY], [Grid(["name", "value"], [[NASTY, "1.5"]], title="A grid")], [PICTURE]
)


def made(*folders: Path) -> report_text.ReportMetadata:
    return report_text.ReportMetadata(
        datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc), "9.9", folders or (Path("results"),)
    )


def pages_of(names: list[str]) -> list[dict]:
    return [yaml.safe_load(catalogue.find("table", name).read_text(encoding="utf-8")) for name in names]


def name_of(row: dict) -> str:
    return row["label"] + ("*" if row.get("reimplemented") else "")


def rank_marks(page: dict) -> dict[tuple[str, int], str]:
    """Row id and column to `b` or `u`, by looking through each block's values."""
    marks = {}
    for block in page["blocks"]:
        rows = [row for row in block["rows"] if not row.get("reference")]
        for column in range(len(page["columns"])):
            values = [row["published"][column] for row in rows]
            best = max(values)
            second = max((v for v in values if v < best), default=None)
            for row in rows if second is not None else ():
                value = row["published"][column]
                marks[row["id"], column] = "b" if value == best else "u" if value == second else ""
    return marks


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """Full-size and tiny runs, with a gain, a control of it, a failure, and a name with markup."""
    results = tmp_path_factory.mktemp("report") / "results"
    make = run_maker(results)
    rest = {"AP50": 55.0, "AP75": 39.0, "APS": 20.0, "APM": 40.0, "APL": 48.0}
    for seed, (base, rlo, control) in enumerate(((36.0, 37.0, 36.1), (36.2, 37.0, 36.0), (35.8, 36.9, 36.3))):
        make(BASE, seed, {"AP": base, **rest})
        make(RLO, seed, {"AP": rlo, **rest})
        make(RLO, seed, {"AP": control, **rest}, sets=("weighting.gamma=0",))
    make(RLO, 3, status="failed", ways=())
    make("fcos-r50", 0, {"AP": 36.6, **rest}, name="a <b>&_%#$ name")
    make("retinanet-r101-rlo", 0, status="failed")
    make(BASE, 0, {"AP": 50.0}, profile="tiny")
    return build_report(collect(results)), results


@pytest.fixture(scope="module")
def page(measured: tuple[Report, Path]) -> Page:
    report, results = measured
    return Page(render_html_page(report, made(results), results.parent / "out", [SECTION]))


def published_tables(page: Page) -> list[HtmlTable]:
    return [next(t for t in page.tables if t.title.startswith(f"Table {i}: ")) for i in range(1, 6)]


def test_every_published_cell_of_the_page_without_runs_and_its_mark(tmp_path: Path):
    page = Page(render_html_page(build_report(collect(tmp_path)), made(tmp_path), tmp_path))
    assert page.tags.count("details") == 5  # collapsed: nothing was measured
    for table, source in zip(published_tables(page), pages_of(TABLES)):
        marks = rank_marks(source)
        rows = iter([row for row in table.rows if len(row) > 3][1:])
        for row in (row for block in source["blocks"] for row in block["rows"]):
            label, backbone, *cells = next(rows)
            assert (label.text, backbone.text) == (name_of(row), row["backbone"])
            for column, (cell, value) in enumerate(zip(cells, row["published"])):
                assert cell.text == f"{value:.1f}"
                assert cell.mark == marks.get((row["id"], column), ""), (row["id"], column)
        assert next(rows, None) is None


def test_every_published_cell_beside_measured_ones(page: Page):
    checked = 0
    for table, source in zip(published_tables(page), pages_of(TABLES)):
        if not any(cell.text == "published" for row in table.rows for cell in row):
            continue
        rows = iter([row for row in table.rows if len(row) > 3][2:])
        for row in (row for block in source["blocks"] for row in block["rows"]):
            cells = next(rows)
            assert cells[0].text == name_of(row)
            shown = [cells[2].text, *(cell.below for cell in cells[8 : 8 + len(row["published"]) - 1])]
            assert shown == [f"{value:.1f}" for value in row["published"]]
            checked += 1
    assert checked == 19 + 6 + 6 + 6  # all but table 2


def test_every_published_cell_of_the_latex(measured: tuple[Report, Path], tmp_path: Path):
    for report in (measured[0], build_report(collect(tmp_path))):
        for table, source in zip(published(report), pages_of(TABLES)):
            marks = rank_marks(source)
            rows = latex_rows(render_latex_table(table))
            for row in (row for block in source["blocks"] for row in block["rows"]):
                own = [
                    r
                    for r in rows
                    if plain(r[0]) == escape_tex(name_of(row)) and r[1] == escape_tex(row["backbone"] or "")
                ]
                cells = own[0][2 : 2 + len(row["published"])]
                if any(line.group for line in table.rows):  # below the measured ones, after seven columns
                    cells = [own[0][2], *map(below, own[0][8 : 7 + len(row["published"])])]
                assert [plain(cell) for cell in cells] == [f"{value:.1f}" for value in row["published"]]
                for column, cell in enumerate(cells):
                    wanted = {"b": r"\textbf", "u": r"\underline"}.get(marks.get((row["id"], column), ""), "")
                    assert cell.startswith(wanted) and (wanted or not cell.startswith("\\"))


def below(cell: str) -> str:
    """The second line of a LaTeX cell of two."""
    (found,) = re.findall(r"^\\shortstack\[r\]{.*\\\\\\scriptsize (.*)}$", cell)
    return found


def row_of(page: Page, table: str, label: str) -> list[HtmlCell]:
    (found,) = [t for t in page.tables if t.title.startswith(table)]
    return next(row for row in found.rows if row[0].text == label)


def test_a_measured_row_says_what_was_found(page: Page):
    pairs = (1.0, 0.8, 1.1)
    interval = stats.ttest_1samp(pairs, 0).confidence_interval(0.95)
    cells = row_of(page, "Table 3: ", "all four (RLO)")
    mean, beyond, change, told = (cells[i].text for i in (3, 4, 6, 7))
    assert mean == "37.0 ± 0.1 (3), 1 failed"
    assert cells[3].mark == "b"
    assert beyond == "+0.1"  # 36.967 to 36.9 as published
    assert change == f"+1.0 [+{interval.low:.1f}, +{interval.high:.1f}]"
    assert told == "gain"
    assert cells[7].below == "above 1 of 1 controls, 3 not run"
    assert [row_of(page, "Table 3: ", "uniform (baseline)")[i].text for i in (3, 6, 7)] == [
        "36.0 ± 0.2 (3)",
        "",
        "",
    ]
    assert [row_of(page, "Table 3: ", "largest")[i].text for i in (3, 4, 6, 7)] == ["no runs", "", "", ""]
    table1 = next(t for t in page.tables if t.title.startswith("Table 1: "))
    assert any(
        row[1].text == "ResNet-101" and row[3].text == "1 failed" for row in table1.rows if len(row) > 3
    )
    assert "differences by seed: +1.0, +0.8, +1.1" in page.text


def test_claims_come_first_once_each_and_with_their_controls(page: Page, measured: tuple[Report, Path]):
    start = page.text.index("What can be claimed")
    assert start < page.text.index("Contents") < page.text.index("How the numbers are to be read")
    text = " ".join(page.text[start : page.text.index("Contents")].split())
    assert text.count("retinanet-r50-rlo: AP +1.0") == 1  # though four tables show it
    assert "Table 1, Table 3, Table 4, Table 5" in text
    assert "Minus its controls: gamma = 0 +0.8 [" in text
    assert "Controls not run: random weights;" in text
    found = find_claims(measured[0].tables)
    assert count_verdicts(found).startswith("2 rows are compared with a baseline: 1 gain, 1 within noise.")
    assert "With 2 intervals at 95 %, 0.1 would be expected" in count_verdicts(found)


def test_a_page_needs_nothing_but_itself_and_links_only_to_runs(page: Page, measured: tuple[Report, Path]):
    report, results = measured
    text = render_html_page(report, made(results), results.parent / "out", [SECTION])
    assert not re.search(r"https?:|url\(|@import|<link|<iframe|<object", text)
    pictures = [target for tag, target in page.targets if tag == "img"]
    assert len(pictures) == 1 and pictures[0].startswith("data:image/")
    links = [target for tag, target in page.targets if tag == "a"]
    inner = {link.removeprefix("#") for link in links if link.startswith("#")}
    assert inner <= set(re.findall(r' id="([^"]+)"', text))
    folders = {urllib.parse.unquote(link) for link in links if not link.startswith("#")}
    assert {tag for tag, _ in page.targets} == {"a", "img"}
    for link in folders:
        assert not re.match(r"[a-z]+:|/", link)
        assert (results.parent / "out" / link).resolve().is_dir()
    runs = {path.parent for path in results.rglob("record.json")}
    linked = {(results.parent / "out" / link).resolve() for link in folders}
    assert {run.resolve() for run in runs} <= linked  # seeds one by one
    assert {
        run.parent.resolve() for run in runs if "a <b>" in str(run)
    } <= linked  # and the mean to its config


def test_no_text_becomes_markup(page: Page):
    assert page.tags.count("script") == 1
    assert page.text.count(NASTY) == 3  # paragraph, cell, caption
    assert "a <b>&_%#$ name" in page.text


def test_latex_of_any_text():
    assert escape_tex("a_b & 5% #1 $x^2$ ~{}") == (
        r"a\_b \& 5\% \#1 \ensuremath{\mathdollar}x\textasciicircum{}2\ensuremath{\mathdollar} \textasciitilde{}\{\}"
    )
    assert escape_tex("<script>\\x") == r"\textless{}script\textgreater{}\textbackslash{}x"
    assert escape_tex("-0.6 [-1.0, +0.5]") == r"\ensuremath{-}0.6 {[}\ensuremath{-}1.0, +0.5{]}"
    assert escape_tex("r50-rlo --seeds") == "r50{-}rlo {-}{-}seeds"
    assert escape_tex("α Δ ± † é\n中") == (
        r"\ensuremath{\alpha} \ensuremath{\Delta} \ensuremath{\pm} \ensuremath{\dagger} é U+4E2D"
    )
    assert make_comment("a\nb") == "% a b"


def test_run_folders_stand_in_the_latex_as_comments(measured: tuple[Report, Path]):
    report, results = measured
    text = render_latex_table(published(report)[0])
    for run in results.glob("runs/retinanet-r50-rlo/*/seed3"):
        assert f"% {run}" in text.splitlines()
    assert text.startswith("% Needs the packages booktabs and graphicx.")


def test_pictures_are_the_files_that_were_drawn(measured: tuple[Report, Path]):
    report, results = measured
    text = render_html_page(report, made(results), results, [SECTION])
    (uri,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', text)
    assert base64.b64decode(uri).decode() == SVG
    heavy = Picture("p", "c", "a", PNG, SVG + " " * 400_000)
    text = render_html_page(report, made(results), results, [Section("s", pictures=[heavy])])
    (uri,) = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert base64.b64decode(uri) == PNG


def test_two_tables_never_share_a_file():
    assert report_text.make_stems(["a b", "a-b", "A/B", "report", "c"]) == {
        "a b": "a-b", "a-b": "a-b-2", "A/B": "A-B-3", "report": "report-2", "c": "c",
    }  # fmt: skip


def nasty_table(folder: Path) -> None:
    """A table of a user's own whose every text is NASTY."""
    rows = [
        {"id": "a", "label": NASTY, "backbone": NASTY, "recipe": BASE, "published": [1.0]},
        {"id": "b", "label": NASTY, "recipe": RLO, "published": [1.0], "baseline": "a"},
    ]
    content = {
        "name": "mine",
        "title": NASTY,
        "columns": ["AP_%"],
        "note": NASTY,
        "blocks": [{"title": NASTY, "rows": rows}],
    }
    (folder / "recipes" / "tables").mkdir(parents=True)
    (folder / "recipes" / "tables" / "mine.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def test_a_table_of_ones_own_cannot_break_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_run: MakeRun, results: Path
):
    nasty_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    report = build_report(collect(results), ["mine"])
    page = Page(render_html_page(report, made(results), tmp_path, [SECTION]))
    assert page.tags.count("script") == 1
    (table,) = [t for t in page.tables if NASTY in t.title]
    first = next(row for row in table.rows if row[0].text == NASTY and len(row) > 3)
    assert [cell.text for cell in first][:3] == [NASTY, NASTY, "1.0"]
    assert {cell.mark for row in table.rows for cell in row} == {""}  # all equal: no best


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_the_latex_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: tuple[Report, Path]):
    nasty_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    report, results = measured
    odd = build_report(collect(results), ["mine"])
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / f"{report_text.make_file_name(PICTURE.name)}.png").write_bytes(PNG)
    for name, each in (("one", report), ("two", odd)):
        Path(f"{name}.tex").write_text(render_latex_report(each, made(results), [SECTION]), encoding="utf-8")
        paper = r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx}"
        paper += r"\begin{document}\input{t}\end{document}"
        Path("t.tex").write_text(render_latex_table(published(each)[0]), encoding="utf-8")
        Path("paper.tex").write_text(paper, encoding="utf-8")
        for document in (name, "paper"):
            ran = subprocess.run(
                ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", document],
                capture_output=True, text=True, errors="replace", timeout=120,
            )  # fmt: skip
            assert ran.returncode == 0, ran.stdout[-2000:]
            assert Path(f"{document}.pdf").stat().st_size > 10_000
