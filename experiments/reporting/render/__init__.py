"""A report in its formats. The HTML page is in `page`, which alone needs Jinja2."""

from experiments.reporting.render.claims import count_verdicts, find_claims
from experiments.reporting.render.latex import latex_table
from experiments.reporting.render.latex_report import latex_report
from experiments.reporting.render.markdown import markdown
from experiments.reporting.render.records import csv_text, report_content
from experiments.reporting.render.report_files import ReportFiles
from experiments.reporting.render.text import ReportMetadata, file_name, no_results_message, stems

__all__ = [
    "ReportFiles",
    "ReportMetadata",
    "count_verdicts",
    "csv_text",
    "file_name",
    "find_claims",
    "latex_report",
    "latex_table",
    "markdown",
    "no_results_message",
    "report_content",
    "stems",
]
