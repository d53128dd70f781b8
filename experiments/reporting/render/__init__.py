"""A report in its formats: Markdown, CSV, LaTeX; the HTML page is in `page`, which alone needs Jinja2."""

from experiments.reporting.render.csv import csv_text
from experiments.reporting.render.latex import latex_table
from experiments.reporting.render.latex_report import latex_report
from experiments.reporting.render.markdown import (
    escaped,
    markdown,
    markdown_claims,
    markdown_index,
    markdown_other,
    markdown_problems,
)
from experiments.reporting.render.text import (
    OTHER_TITLE,
    ReportMetadata,
    file_name,
    label,
    long_name,
    metrics_of,
    no_results_message,
    stems,
)

__all__ = [
    "OTHER_TITLE",
    "ReportMetadata",
    "csv_text",
    "escaped",
    "file_name",
    "label",
    "latex_report",
    "latex_table",
    "long_name",
    "markdown",
    "markdown_claims",
    "markdown_index",
    "markdown_other",
    "markdown_problems",
    "metrics_of",
    "no_results_message",
    "stems",
]
