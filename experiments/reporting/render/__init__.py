"""A report in its formats. The HTML page is in `page`, which alone needs Jinja2."""

from experiments.reporting.render.records import report_content
from experiments.reporting.render.report_files import ReportFiles
from experiments.reporting.render.text import ReportMetadata, explain_no_results

__all__ = ["ReportFiles", "ReportMetadata", "explain_no_results", "report_content"]
