"""`msdet report` and `msdet runs` as a person types them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pandas as pd
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.reporting import compare_runs
from msdet_cli.commands import report
from msdet_cli.console.result_tables import print_comparison

from .conftest import MakeRun, run_maker

BASE, RLO = "retinanet-r50", "retinanet-r50-rlo"
app = typer.Typer(rich_markup_mode=None)
app.command("report")(report.report)
app.command("other")(lambda: None)  # one command alone would need no name


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MSDET_RESULTS", raising=False)
    monkeypatch.setenv("COLUMNS", "120")


def typed(*words: str) -> str:
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*words: str) -> UserError:
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, words, catch_exceptions=False)
    return caught.value


@pytest.fixture
def tiny_runs(make_run: MakeRun) -> None:
    for seed, (base, rlo) in enumerate(((50.0, 51.0), (51.0, 52.0))):
        rest = dict.fromkeys(("AP50", "AP75", "APM", "APL"), 60.0)
        make_run(BASE, seed, {"AP": base, "APS": 25.5, **rest}, profile="tiny")
        make_run(RLO, seed, {"AP": rlo, "APS": 26.5, **rest}, profile="tiny")


def test_without_runs_it_shows_what_was_published_and_what_to_type():
    text = typed("report")
    assert [text.index(f"\nTable {i}:") for i in range(1, 6)] == sorted(
        text.index(f"\nTable {i}:") for i in range(1, 6)
    )
    assert text.rstrip().endswith(
        "There are no runs in results yet. For a first one: msdet run retinanet-r50-rlo -p tiny"
    )
    for form in ("md", "csv"):
        assert "78.8" in typed("report", "--format", form)


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_console_shows_own_runs_first_and_where_they_are(
    tiny_runs: None, monkeypatch: pytest.MonkeyPatch, columns: str
):
    monkeypatch.setenv("COLUMNS", columns)
    text = typed("report")
    assert text.index("Table 5, profile tiny on shapes (NOT comparable") < text.index("Table 1: Detectors")
    row = next(line for line in text.splitlines() if line.startswith("RetinaNet w/ RLO"))
    assert "51.5 ± 0.7 (2)" in row
    assert "+1.0 [+1.0, +1.0]" in row
    assert ("26.5" in row) == (columns == "120")
    assert "results/runs/retinanet-r50-rlo/" in text
    assert "95 % confidence interval" in " ".join(text.split())
    tables = [line for line in text.splitlines() if not line.startswith(("[", "    "))]
    assert max(len(line) for line in tables) <= int(columns)


def test_with_full_size_runs_each_table_stands_above_its_contexts(make_run: MakeRun, tiny_runs: None):
    make_run(RLO, 0, {"AP": 36.8})
    text = typed("report", "table1", "table4")
    order = ["Table 1: ", "Table 1, profile tiny", "Table 4: ", "Table 4, profile tiny"]
    places = [text.index(title) for title in order]
    assert places == sorted(places)
    row = next(line for line in text.splitlines() if "36.8 ± - (1)" in line)
    assert " ".join(row.split()) == "RetinaNet w/ RLO ResNet-50 36.9 +0.8 36.8 ± - (1) [1]"
    assert "Table 2" not in text
    assert "Other runs" not in text


def test_csv_on_standard_output_is_one_csv(tiny_runs: None, make_run: MakeRun):
    make_run(RLO, 0, {"AP": 40.0}, profile="tiny", sets=("weighting.gamma=0.5",))
    frame = pd.read_csv(io.StringIO(typed("report", "--format", "csv")))
    variants = f"{RLO}, profile tiny on shapes"
    assert set(frame["table"]) == {"table1", "table2", "table3", "table4", "table5", variants}
    assert 40.0 in frame.loc[frame["table"] == variants, "measured_AP_mean"].tolist()
    assert frame["measured_AP_mean"].dropna().isin([50.5, 51.5, 40.0]).all()


def test_out_writes_a_file_per_table(tiny_runs: None, make_run: MakeRun, tmp_path: Path):
    make_run("fcos-r50", 0, {"AP": 40.0}, profile="tiny", sets=("schedule.lr=0.02",))
    for form, first in (("md", ["report.md"]), ("csv", [])):
        said = typed("report", "--format", form, "--out", "a/report", "--no-figures")
        stems = ("table1", "table2", "table3", "table4", "table5", "other-runs")
        names = [*first, *(f"{stem}.{form}" for stem in stems)]
        assert said.split() == [f"a/report/{name}" for name in names]
        assert sorted(p.name for p in Path("a/report").glob(f"*.{form}")) == sorted(names)
    page = Path("a/report/table4.md").read_text(encoding="utf-8")
    assert "## Table 4: " in page
    assert "## Table 4, profile tiny on shapes" in page
    assert "(../../results/runs/retinanet-r50-rlo/" in page
    assert set(pd.read_csv("a/report/table4.csv")["context"]) == {"published", "profile tiny on shapes"}
    assert "40.0 ± - (1)" in Path("a/report/other-runs.md").read_text(encoding="utf-8")


def test_a_broken_record_is_said_and_hides_nothing(tiny_runs: None, make_run: MakeRun):
    make_run(BASE, 5, {"AP": 1.0}).record_file.write_text("{", encoding="utf-8")
    for words in (("report",), ("report", "--format", "md")):
        text = typed(*words)
        assert "Left out: " in text
        assert "51.5" in text
    result = CliRunner().invoke(app, ["report", "--format", "csv"])
    assert "Left out" in result.stderr
    assert "Left out" not in result.stdout


def test_tables_without_published_numbers(tiny_runs: None, make_run: MakeRun):
    assert "Figure 4" not in typed("report")
    text = typed("report", "fig4")
    assert "Figure 4, profile tiny on shapes\n" in text
    assert "Figure 4: RLO" in text
    assert "published" not in text
    rows = [" ".join(line.split()) for line in text.splitlines() if line.startswith("RetinaNet w/ RLO")]
    assert rows == [
        "RetinaNet w/ RLO retinanet-r50-rlo 51.5 ± 0.7 (2) +1.0 [+1.0, +1.0] 60.0 60.0 26.5 60.0 60.0 [2]",
        "RetinaNet w/ RLO retinanet-r50-rlo no runs",
    ]


FORMS = ("console", "md", "csv", "latex", "html")


def said(form: str, *more: str) -> str:
    """What a report of table 2 says in a format, standard error included, as one line without escapes."""
    result = CliRunner().invoke(app, ["report", "table2", "--format", form, *more], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join((result.stdout + result.stderr).replace("\\_", "_").split())


@pytest.mark.parametrize("form", FORMS)
def test_without_a_number_each_format_says_why(make_run: MakeRun, form: str):
    assert "There are no runs in results yet." in said(form)
    run = make_run("retinanet-r50-voc", 0, status="failed")
    assert "No run in results that belongs here has finished: 1 failed." in said(form)
    text = run.record_file.read_text(encoding="utf-8")
    newer = re.sub(r'"schema_version": \d+', '"schema_version": 99', text)
    run.record_file.write_text(newer, encoding="utf-8")
    told = said(form)
    assert "No run in results can be read." in told
    assert ("Left out" if form == "html" else "Left out: ") in told
    assert "schema" in told


def test_runs_of_two_machines_in_one_report(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_maker(tmp_path / "other")("retinanet-r50-voc", 1, {"mAP": 78.0})
    make_run("retinanet-r50-voc", 0, {"mAP": 76.0})
    for form in ("csv", "html"):
        assert "77.0" in said(form, "--results-dir", "results", "--results-dir", "other")
    monkeypatch.setenv("MSDET_RESULTS", "other")
    assert "78.0 ± - (1)" in said("html")


def test_all_formats_are_written_at_once(make_run: MakeRun):
    make_run("retinanet-r50-voc", 0, {"mAP": 76.0})
    told = typed("report", "table2", "--format", "all", "--no-figures")
    names = ["report.md", "table2.md", "table2.csv", "report.tex", "table2.tex", "report.html"]
    assert told.split() == [f"report/{name}" for name in names]
    assert all(Path("report", name).stat().st_size for name in names)
    assert r"\input{table2.tex}" in Path("report/report.tex").read_text(encoding="utf-8")


def test_mistakes():
    assert "did you mean 'md'" in refusal("report", "--format", "mdd").message
    assert "did you mean 'table3'" in refusal("report", "table_3").message
    assert "--out" in refusal("report", "--out", "x").message
    Path("taken").touch()
    assert "cannot be written" in refusal("report", "--format", "md", "--out", "taken").message


def printed(width: int, made: object) -> str:
    stream = io.StringIO()
    print_comparison(Console(file=stream, width=width), made)
    return stream.getvalue()


def test_a_comparison_on_the_console(make_run: MakeRun):
    names = ("AP", "AP50", "AP75", "APS", "APM", "APL")
    made = [
        make_run(r, s, dict.fromkeys(names, a + s), profile="tiny")
        for r, a in ((BASE, 50.0), (RLO, 52.0))
        for s in (0, 1)
    ]
    made.append(make_run(RLO, 2, status="failed", profile="tiny"))
    compared = compare_runs(made, ["[uniform]", "[uniform]", "rlo", "rlo", "rlo"])
    wide, narrow = printed(120, compared), printed(60, compared)
    for text in (wide, narrow):
        assert "[uniform]" in text  # no markup
        row = next(line for line in text.splitlines() if line.startswith("rlo"))
        assert "52.5 ± 0.7 (2), 1 failed" in row
        assert "+2.0 [+2.0, +2.0]" in row
    assert "APL" in wide
    assert "APL" not in narrow
    assert "1 failed" in printed(80, compare_runs(made[-1:]))
