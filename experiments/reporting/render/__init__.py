"""A report in its formats. The HTML page is in `page`, which alone needs Jinja2."""

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
    ReportMetadata,
    file_name,
    long_name,
    no_results_message,
    stems,
)

__all__ = [
    "ReportMetadata",
    "csv_text",
    "escaped",
    "file_name",
    "latex_report",
    "latex_table",
    "long_name",
    "markdown",
    "markdown_claims",
    "markdown_index",
    "markdown_other",
    "markdown_problems",
    "no_results_message",
    "stems",
]
