"""`msdet report` and `msdet runs` as a person types them."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.recipes.loading import compute_config_hash, compute_recipe_id, prepare_variants
from experiments.reporting import report_frame
from experiments.reporting.tables.sections import Grid
from experiments.runs.run_folder import RunFolder
from msdet_cli.commands import report
from msdet_cli.console.result_tables import fit_view, print_results

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


def test_without_runs_it_names_the_tables_and_what_to_type():
    text = typed("report")
    assert text.splitlines() == [
        "table1, table2, table3, table4, table5 have no runs of their own yet. To fill one: msdet reproduce table1 -p"
        " tiny",
        "There are no runs in results yet. For a first one: msdet run retinanet-r50-rlo -p tiny",
    ]
    assert "78.8" in typed("report", "table2")
    for form in ("md", "csv"):
        assert "78.8" in typed("report", "--format", form)


def test_a_named_table_is_whole_without_runs(results: Path):
    text = typed("report", "table1")
    assert sum(line.rstrip().endswith("no runs") for line in text.splitlines()) == 19
    assert all(f"{value}" in text for value in (36.1, 36.9, 20.3, 49.5))


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_console_begins_with_what_can_be_said(
    tiny_runs: None, monkeypatch: pytest.MonkeyPatch, columns: str
):
    monkeypatch.setenv("COLUMNS", columns)
    text = typed("report")
    assert text.startswith("What can be said\n1 row is compared with a baseline: 1 too few seeds.")
    (claim,) = re.findall(r"too few seeds +(retinanet-r50-rlo: AP .*?)\)", " ".join(text.split()))
    assert claim == "retinanet-r50-rlo: AP +1.0 [+1.0, +1.0] against uniform; paired, 2 seeds (Table 1"
    assert text.index("What can be said") < text.index("Table 1, profile tiny on shapes (NOT comparable")
    assert "Table 5" not in text  # it would show the same runs
    assert "table2, table3, table4, table5 have no runs of their own yet" in text
    row = next(line for line in text.splitlines() if line.startswith("RetinaNet w/ RLO"))
    assert "51.5 ± 0.7 (2)" in row
    assert "+1.0 [+1.0, +1.0]" in row
    assert ("26.5" in row) == (columns == "120")
    assert "Δ AP: to RetinaNet*." in text
    assert "Runs: results/runs/retinanet-r50/" in text
    assert "95 % confidence interval" in " ".join(text.split())
    notes = ("RetinaNet w/ RLO:", "Runs:", "table2,", "With figures", "  msdet")
    assert max(len(line) for line in text.splitlines() if not line.startswith(notes)) <= int(columns)


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_claims_are_one_screen_whatever_the_number_of_rows(count: int, make_run: MakeRun, results: Path):
    """Many configs, one of them a gain that comes last."""
    for seed in range(3):
        make_run(BASE, seed, {"AP": 50.0 + seed}, profile="tiny")
    folder = make_run(RLO, 0, {"AP": 50.0}, profile="tiny").path
    variants = map(
        prepare_variants(RLO, "tiny"), ([f"weighting.gamma={i / count / 2}"] for i in range(1, count + 1))
    )
    page, record = (folder / "recipe.yaml").read_text(), json.loads((folder / "record.json").read_text())
    for number, variant in enumerate(variants):
        digest = compute_config_hash(variant, record["dataset"]["fingerprint"])
        for seed in range(3 if number == count - 1 else 1):
            run = RunFolder.of(results, RLO, digest, seed)
            run.path.mkdir(parents=True, exist_ok=True)
            about = {"recipe_id": compute_recipe_id(variant), "config_hash": digest, "seed": seed}
            metrics = {"AP": 55.0 + seed + number / 1e6}
            run.record_file.write_text(json.dumps({**record, **about, "metrics": metrics}))
            run.recipe.write_text(page.replace("gamma: 0.01", f"gamma: {variant.weighting['gamma']}"))
    lines = typed("report").splitlines()
    end = next(i for i, line in enumerate(lines) if "more: msdet report --format html" in line)
    assert end < 24
    assert "1 gain" in lines[1]
    assert any(line.startswith("  gain") and "gamma: 0.5 (0.01)" in line for line in lines[:end])
    assert len(lines) < 150


def test_with_full_size_runs_each_table_stands_above_its_contexts(make_run: MakeRun, tiny_runs: None):
    make_run(RLO, 0, {"AP": 36.8})
    text = typed("report", "table1", "table4")
    order = ["Table 1: ", "Table 1, profile tiny", "Table 4: ", "Table 4, profile tiny"]
    places = [text.index(title) for title in order]
    assert places == sorted(places)
    row = next(line for line in text.splitlines() if "36.8 ± - (1)" in line)
    assert " ".join(row.split()) == "RetinaNet w/ RLO ResNet-50 36.9 36.8 ± - (1) -0.1 +0.8"
    assert "Table 2" not in text
    assert "Runs of no table" not in text


def test_filters_keep_what_rows_are_compared_with(tiny_runs: None, make_run: MakeRun):
    make_run("retinanet-r50-avw", 0, {"AP": 48.0}, profile="tiny")
    make_run("retinanet-r50-voc", 0, {"mAP": 76.0})
    rows = pd.read_csv(io.StringIO(typed("report", "--recipe", RLO, "--format", "csv")))
    shown = rows.loc[rows["measured_AP_mean"].notna(), ["recipe", "measured_difference"]]
    assert shown.values.tolist()[1] == [RLO, 1.0]
    assert set(shown["recipe"]) == {BASE, RLO}
    assert set(rows["recipe"]) == {BASE, RLO}
    for words in (("-p", "none"), ("--dataset", "voc")):
        text = typed("report", *words)
        assert "76.0" in text
        assert "51.5" not in text
    assert "76.0" not in typed("report", "--profile", "tiny")


def test_the_report_for_programs(tiny_runs: None, make_run: MakeRun):
    make_run(BASE, 5, {"AP": 1.0}).record_file.write_text("{", encoding="utf-8")
    content = json.loads(typed("report", "table1", "--json"))
    (claim,) = content["claims"]
    assert (claim["verdict"], claim["measured_difference"], claim["compared_seeds"]) == (
        "too few seeds",
        1.0,
        2,
    )
    published, tiny = content["tables"]
    assert published["rows"][0]["published_AP"] == 37.0
    base, rlo = tiny["rows"]
    assert rlo["by_seed"]["AP"] == {"0": 51.0, "1": 52.0}
    assert (rlo["baseline"], rlo["measured_AP_mean"], rlo["done"]) == (base["id"], 51.5, 2)
    assert all(Path(folder, "record.json").is_file() for folder in rlo["folders"])
    (warning,) = content["warnings"]
    assert "seed5/record.json" in warning


def test_a_frame_for_notebooks_holds_what_the_csv_does(tiny_runs: None):
    frame = report_frame("results", ["table1"])
    csv = pd.read_csv(io.StringIO(typed("report", "table1", "--format", "csv")))
    assert frame.columns.tolist() == csv.columns.tolist()
    assert len(frame) == len(csv) == 21
    row = frame[frame["context"] == "profile tiny on shapes"].iloc[1]
    assert (row["label"], row["measured_AP_mean"], row["measured_AP_n"]) == ("RetinaNet w/ RLO", 51.5, 2)


def test_another_row_to_compare_with(tiny_runs: None, make_run: MakeRun):
    make_run("retinanet-r50-avw", 0, {"AP": 48.0}, profile="tiny")
    text = typed("report", "table3", "--against", "variance (AVW)")
    row = next(line for line in text.splitlines() if line.startswith("all four (RLO)") and "51.5" in line)
    assert "+3.5" in row  # 51.5 - 48.0: one seed of AVW, so the means
    assert "Δ AP: to variance (AVW)." in text
    assert "no row 'varianse'; did you mean" in refusal("report", "table3", "--against", "varianse").message


def test_a_named_table_says_why_finished_runs_are_in_no_row(make_run: MakeRun):
    run = make_run(RLO, 0, {"AP": 50.0}, profile="tiny", sets=("weighting.gamma=0.5",))
    text = typed("report", "controls")
    assert (
        f"results/runs/{'/'.join(run.path.parts[-3:-1])}/seed* is in no row of controls: nearest is 'RLO' but for"
        " weighting.gamma: 0.5 (0.01)." in " ".join(text.split())
    )
    assert "is in no row" not in typed("report")


def test_csv_on_standard_output_is_one_csv(tiny_runs: None, make_run: MakeRun):
    make_run(RLO, 0, {"AP": 40.0}, profile="tiny", sets=("weighting.gamma=0.5",))
    frame = pd.read_csv(io.StringIO(typed("report", "--format", "csv")))
    assert set(frame["table"]) == {"table1", "table2", "table3", "table4", "table5", "other-runs"}
    other = frame[frame["table"] == "other-runs"].set_index("differs")
    assert other.loc["weighting.gamma: 0.5 (0.01)", "measured_AP_mean"] == 40.0
    assert frame["measured_AP_mean"].dropna().isin([50.5, 51.5, 40.0]).all()


def test_out_writes_a_file_per_table(tiny_runs: None, make_run: MakeRun, tmp_path: Path):
    make_run("fcos-r50", 0, {"AP": 40.0}, profile="tiny", sets=("schedule.lr=0.02",))
    for form, first in (("md", ["report.md"]), ("csv", [])):
        said = typed("report", "--format", form, "--out", "a/report", "--no-figures")
        stems = ("table1", "table2", "table3", "table4", "table5", "other-runs")
        names = [*first, *(f"{stem}.{form}" for stem in stems)]
        assert said.split() == [f"a/report/{name}" for name in names]
        assert sorted(p.name for p in Path("a/report").glob(f"*.{form}")) == sorted(names)
    page = Path("a/report/table1.md").read_text(encoding="utf-8")
    assert "## Table 1: " in page
    assert "## Table 1, profile tiny on shapes" in page
    assert "(../../results/runs/retinanet-r50-rlo/" in page
    assert set(pd.read_csv("a/report/table1.csv")["context"]) == {"published", "profile tiny on shapes"}
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
    rows = [" ".join(line.split()) for line in text.splitlines() if line.startswith("RetinaNet w/ RLO ")]
    assert rows == [
        "RetinaNet w/ RLO retinanet-r50-rlo 51.5 ± 0.7 (2) +1.0 [+1.0, +1.0] too few seeds 60.0 60.0 26.5 60.0",
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
    assert "--out" in refusal("report", "--json", "--format", "md", "--out", "x").message
    Path("other").mkdir()
    Path("other/file").touch()
    assert "does not exist" in refusal("report", "--results-dir", "absent").message
    assert "is no results folder" in refusal("report", "--results-dir", "other").message
    Path("taken").touch()
    assert "cannot be written" in refusal("report", "--format", "md", "--out", "taken").message


def printed(width: int, *made: RunFolder) -> str:
    stream = io.StringIO()
    print_results(Console(file=stream, width=width), Path("results"), [], made)
    return stream.getvalue()


def test_given_runs_on_the_console(make_run: MakeRun):
    names = ("AP", "AP50", "AP75", "APS", "APM", "APL")
    made = [
        make_run(r, s, dict.fromkeys(names, a + s), profile="tiny")
        for r, a in ((BASE, 50.0), (RLO, 52.0))
        for s in (0, 1)
    ]
    made.append(make_run(RLO, 2, status="failed", profile="tiny"))
    absent = RunFolder(made[-1].path.with_name("seed9"))
    for width in (80, 140):
        text = printed(width, *made, absent)
        row = next(line for line in text.splitlines() if line.startswith(RLO))
        assert "52.5 ± 0.7 (2), 1 failed" in row
        assert "+2.0 [+2.0, +2.0]" in row
        assert f"Δ AP: to {BASE}." in text
        assert ("APL" in text) == (width == 140)
    assert "1 failed" in printed(80, made[-1])


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_that_is_too_wide_wraps_its_numbers_and_not_only_its_labels(width: int):
    interval = "0.965 [0.543, 1.715]"
    grid = Grid(["model", *(f"to baseline {n}" for n in range(5))], [["RetinaNet", *([interval] * 5)]])
    console = Console(file=io.StringIO(), width=width)
    console.print(fit_view(console, grid.view))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith("Retina") for line in lines)
