"""A report as one HTML page that needs nothing but itself: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.reporting.render import claims
from experiments.reporting.render import text as report_text
from experiments.reporting.tables import row_evidence
from experiments.reporting.tables.report_model import MeasuredTable, Report
from experiments.reporting.tables.report_views import controls_view, measured_view, other_view, runs_view
from experiments.reporting.tables.sections import Picture, Section
from experiments.reporting.tables.table_view import TableView, grid_view

TEMPLATES = Path(__file__).with_name("templates")
MAX_SVG_BYTES = 300_000  # beyond that the PNG is lighter, and looks the same


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
class TableOnPage:
    """One of the report's tables, with what stands below it.

    Attributes:
        is_stacked: Whether cells have a published value below the measured one.
        row_notes: What stands behind each row, its label first.
        commands: What to type for the controls that are missing.
    """

    table: MeasuredTable
    anchor: str
    view: TableView
    is_stacked: bool
    row_notes: Sequence[tuple[str, str]]
    controls: TableView | None
    commands: Sequence[str]

    @property
    def heading(self) -> str:
        return report_text.short_heading(self.table)


@dataclass(frozen=True)
class ClaimView:
    """A claim, and where on the page its tables are."""

    claim: claims.Claim
    links: list[tuple[str, str]]
    controls: str


def html_page(
    report: Report, made: report_text.ReportMetadata, base: Path, sections: Sequence[Section] = ()
) -> str:
    """Return the page; every text in it is escaped.

    Args:
        base: The folder that links to run folders are relative to: the page's own.
    """
    shown = [_table(table, f"t{number}") for number, table in enumerate(report.tables, start=1)]
    anchors = {id(each.table): each.anchor for each in shown}
    groups = report.groups
    found = claims.claims(report.tables)
    page = dict(
        report=report,
        version=made.version,
        made_line=report_text.made_line(report, made),
        standing=report_text.no_results_message(report, made.folders),
        balance=claims.balance(found),
        claims=_by_context(found, anchors),
        measured=[each for each in shown if each.table.is_measured],
        published=[each for each in shown if not each.table.is_measured],
        other=other_view(report.other).without("result") if report.other else None,
        runs=runs_view(groups) if groups else None,
        sections=[_section(section, f"s{i}", base) for i, section in enumerate(sections, start=1)],
        legend=report_text.reading_notes(groups),
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
    environment.filters["minus"] = report_text.minus
    environment.filters["link"] = lambda folder: f"{report_text.link(folder, base)}/"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(page=page, script_digest=digest)


def _by_context(found: Sequence[claims.Claim], anchors: dict[int, str]) -> list[tuple[str, list[ClaimView]]]:
    by_context: dict[str, list[ClaimView]] = {}
    for claim in found:
        links = [(report_text.short_title(table), f"#{anchors[id(table)]}") for table in claim.tables]
        told = row_evidence.controls_in_words(row_evidence.controls_to_show(claim.row))
        by_context.setdefault(claim.context, []).append(ClaimView(claim, links, told))
    return list(by_context.items())


def _table(table: MeasuredTable, anchor: str) -> TableOnPage:
    return TableOnPage(
        table,
        anchor,
        measured_view(table).without("number"),
        table.is_as_published and table.is_measured and len(table.columns) > 1,
        row_evidence.row_notes(table),
        controls_view(table),
        row_evidence.control_commands(table),
    )


def _section(section: Section, anchor: str, base: Path) -> SectionView:
    return SectionView(
        anchor,
        section,
        [grid_view(grid) for grid in section.grids],
        [(picture, _data_uri(picture), report_text.is_wide(picture)) for picture in section.pictures],
        [("/".join(folder.parts[-3:]), report_text.link(folder, base) + "/") for folder in section.folders],
    )


def _data_uri(picture: Picture) -> str:
    if picture.svg and len(picture.svg) <= MAX_SVG_BYTES:
        return "data:image/svg+xml;base64," + base64.b64encode(picture.svg.encode()).decode()
    return "data:image/png;base64," + base64.b64encode(picture.png).decode()
