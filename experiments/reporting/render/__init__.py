"""A report in its formats: Markdown, CSV, LaTeX; the HTML page is in `page`, which alone needs Jinja2."""

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
from experiments.reporting.render.rows import csv_text
from experiments.reporting.render.words import (
    OTHER_TITLE,
    Made,
    file_name,
    label,
    long_name,
    metrics_of,
    standing,
    stems,
)

__all__ = [
    "OTHER_TITLE",
    "Made",
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
    "standing",
    "stems",
]
