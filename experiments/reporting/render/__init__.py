"""A report in its formats. The HTML page is in `page`, which alone needs Jinja2."""

from experiments.reporting.render.claims import count_verdicts, find_claims
from experiments.reporting.render.latex import render_latex_report, render_latex_table
from experiments.reporting.render.markdown import render_markdown
from experiments.reporting.render.records import render_csv, report_content
from experiments.reporting.render.report_files import ReportFiles
from experiments.reporting.render.text import ReportMetadata, explain_no_results, make_file_name, make_stems

__all__ = [
    "ReportFiles",
    "ReportMetadata",
    "count_verdicts",
    "explain_no_results",
    "find_claims",
    "make_file_name",
    "make_stems",
    "render_csv",
    "render_latex_report",
    "render_latex_table",
    "render_markdown",
    "report_content",
]
