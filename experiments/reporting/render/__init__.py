"""A report in its formats. The HTML page is in `page`, which alone needs Jinja2."""

from experiments.reporting.render.csv import csv_text
from experiments.reporting.render.latex import latex_table
from experiments.reporting.render.latex_report import latex_report
from experiments.reporting.render.markdown import markdown, markdown_other
from experiments.reporting.render.report_files import ReportFiles
from experiments.reporting.render.text import ReportMetadata, file_name, no_results_message, stems

__all__ = [
    "ReportFiles",
    "ReportMetadata",
    "csv_text",
    "file_name",
    "latex_report",
    "latex_table",
    "markdown",
    "markdown_other",
    "no_results_message",
    "stems",
]
