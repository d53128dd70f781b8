"""A report as one HTML page that needs nothing but itself: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.reporting.render import claims
from experiments.reporting.render import row_evidence as behind
from experiments.reporting.render import text as words
from experiments.reporting.render.cells import Cell, Column, TableView, grid_view, seed_links, table_view
from experiments.reporting.tables.groups import Group
from experiments.reporting.tables.report_model import LEGEND, OtherRuns, Report
from experiments.reporting.tables.sections import Picture, Section
from experiments.runs.run_flags import joined, legend

TEMPLATES = Path(__file__).with_name("templates")
MOST_SVG_BYTES = 300_000  # beyond that the PNG is lighter, and looks the same


@dataclass(frozen=True)
class SectionView:
    """A section with its pictures as data URIs.

    Attributes:
        anchor: Id on the page.
        pictures: The picture, its URI, and whether it takes the whole width.
    """

    anchor: str
    section: Section
    grids: list[TableView]
    pictures: list[tuple[Picture, str, bool]]
    links: list[tuple[str, str]]


@dataclass(frozen=True)
class ClaimView:
    """A claim, and where on the page its tables are."""

    claim: claims.Claim
    links: list[tuple[str, str]]
    controls: str


@dataclass(frozen=True)
class _Page:
    """Everything that the template shows."""

    report: Report
    made: words.ReportMetadata
    standing: str
    balance: str
    claims: list[tuple[str, list[ClaimView]]]  # by context
    measured: list[TableView]
    published: list[TableView]
    other: TableView | None
    runs: TableView | None
    sections: list[SectionView]
    legend: list[str]
    run_count: str
    commits: list[str]
    texts: dict[str, str] = field(default_factory=dict)


def html_page(
    report: Report, made: words.ReportMetadata, base: Path, sections: Sequence[Section] = ()
) -> str:
    """The page; every text in it is escaped.

    Args:
        base: The folder that links to run folders are relative to: the page's own.
    """
    views = [table_view(table, f"t{number}", base) for number, table in enumerate(report.tables, start=1)]
    anchors = {id(view.table): view.anchor for view in views}
    groups = words.groups_of(report)
    found = claims.claims(report.tables)
    page = _Page(
        report=report,
        made=made,
        standing=words.no_results_message(report, made.folders),
        balance=claims.balance(found),
        claims=_by_context(found, anchors),
        measured=[view for view in views if view.is_measured],
        published=[view for view in views if not view.is_measured],
        other=_other(report.other, base) if report.other else None,
        runs=_runs(groups, base) if groups else None,
        sections=[_section(section, f"s{i}", base) for i, section in enumerate(sections, start=1)],
        legend=[LEGEND, words.RANKS, *legend(joined([group.marks for group in groups]))],
        run_count=words.run_count(report),
        commits=words.commits(report),
    )
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["minus"] = words.minus
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(page=page, script_digest=digest)


def _by_context(found: Sequence[claims.Claim], anchors: dict[int, str]) -> list[tuple[str, list[ClaimView]]]:
    by_context: dict[str, list[ClaimView]] = {}
    for claim in found:
        links = [(words.short_title(table), f"#{anchors[id(table)]}") for table in claim.tables]
        told = behind.controls_in_words(behind.controls_to_show(claim.line))
        by_context.setdefault(claim.context, []).append(ClaimView(claim, links, told))
    return list(by_context.items())


def _other(other: Sequence[OtherRuns], base: Path) -> TableView:
    metrics = words.metrics_of(runs.group for runs in other)
    columns = [Column(name) for name in ("Recipe", "Profile", "Data set", "Config")]
    columns += [Column(name, True) for name in metrics]
    columns += [Column("Differs from the recipe"), Column("Seeds"), Column("Remarks")]
    rows = []
    for runs in other:
        group = runs.group
        cells = [Cell(runs.of("recipe"))]
        cells += [Cell(runs.of(column)) for column in ("profile", "dataset", "config_hash")]
        for name in metrics:
            spread = group.metrics.get(name)
            text = f"{spread}{group.marks}" if spread else ""
            cells.append(Cell(text, sort=spread.mean if spread else None))
        cells += [Cell(runs.differs), Cell(links=seed_links(group.folders, base)), Cell(group.remark())]
        rows.append(cells)
    return TableView("other", words.OTHER_TITLE, columns, [("", rows)])


def _runs(groups: Sequence[Group], base: Path) -> TableView:
    """Every run behind the page: what it is, how it was run, where it is."""
    columns = [Column(name) for name in ("Recipe", "Config", "Profile, data set", "Data", "Seeds", "States")]
    columns += [Column("Run as"), Column("Iterations", True), Column("Minutes a run", True), Column("Commit")]
    rows = []
    for group in groups:
        first, seconds = group.runs.iloc[0], group.runs["seconds"].dropna()
        commits = dict.fromkeys(commit[:12] for commit in group.runs["commit"] if commit)
        context = " on ".join(text for text in (first["profile"], first["dataset"]) if text)
        minutes = f"{seconds.mean() / 60:.1f}" if len(seconds) else ""
        rows.append(
            [
                Cell(str(first["recipe"])),
                Cell(str(first["config_hash"])),
                Cell(context),
                Cell(str(first["fingerprint"])[:12]),
                Cell(links=seed_links(group.folders, base)),
                Cell(group.counts() + group.marks),
                Cell(group.execution),
                Cell(f"{first['iterations']:,}", sort=float(first["iterations"])),
                Cell(minutes, sort=float(seconds.mean()) if len(seconds) else None),
                Cell(", ".join(commits)),
            ]
        )
    return TableView("runs", "Runs behind this page", columns, [("", rows)])


def _section(section: Section, anchor: str, base: Path) -> SectionView:
    return SectionView(
        anchor,
        section,
        [grid_view(grid, f"{anchor}g{i}") for i, grid in enumerate(section.grids, start=1)],
        [(picture, _data_uri(picture), words.is_wide(picture)) for picture in section.pictures],
        [("/".join(folder.parts[-3:]), words.link(folder, base) + "/") for folder in section.folders],
    )


def _data_uri(picture: Picture) -> str:
    if picture.svg and len(picture.svg) <= MOST_SVG_BYTES:
        return "data:image/svg+xml;base64," + base64.b64encode(picture.svg.encode()).decode()
    return "data:image/png;base64," + base64.b64encode(picture.png).decode()
