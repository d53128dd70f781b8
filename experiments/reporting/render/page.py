"""A report as one HTML page that needs nothing but itself: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.reporting.render import text as report_text
from experiments.reporting.render.claims import count_verdicts, find_claims
from experiments.reporting.tables import report_views, row_evidence
from experiments.reporting.tables.report_model import Report
from experiments.reporting.tables.sections import Picture, Section

TEMPLATES = Path(__file__).with_name("templates")
MAX_SVG_BYTES = 300_000  # beyond that the PNG is lighter, and looks the same


def render_html_page(
    report: Report, made: report_text.ReportMetadata, base: Path, sections: Sequence[Section] = ()
) -> str:
    """Return the page; every text in it is escaped.

    Args:
        base: The folder that links to run folders are relative to: the page's own.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    anchors = {id(table): f"t{number}" for number, table in enumerate(report.tables, start=1)}
    environment.filters.update(
        minus=report_text.minus,
        link=lambda folder: f"{report_text.link(folder, base)}/",
        anchor=lambda table: anchors[id(table)],
        measured_view=report_views.build_measured_view,
        controls_view=report_views.build_controls_view,
        row_notes=row_evidence.list_row_notes,
        control_commands=row_evidence.list_control_commands,
        controls_in_words=lambda row: row_evidence.describe_controls(row_evidence.choose_controls(row)),
        data_uri=_data_uri,
    )
    groups, claims = report.groups, find_claims(report.tables)
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        report=report,
        version=made.version,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        made_line=report_text.describe_origin(report, made),
        no_results=report_text.explain_no_results(report, made.folders),
        balance=count_verdicts(claims),
        claims=[(context, list(each)) for context, each in groupby(claims, lambda claim: claim.context)],
        runs=report_views.build_runs_view(groups) if groups else None,
        sections=sections,
        legend=report_text.list_reading_notes(groups),
    )


def _data_uri(picture: Picture) -> str:
    if picture.svg and len(picture.svg) <= MAX_SVG_BYTES:
        return "data:image/svg+xml;base64," + base64.b64encode(picture.svg.encode()).decode()
    return "data:image/png;base64," + base64.b64encode(picture.png).decode()
