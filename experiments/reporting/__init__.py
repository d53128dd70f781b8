"""Run folders to statistics, tables, figures and files. Imports pandas: not for a command's start."""

from experiments.reporting.collect import Collected, collect
from experiments.reporting.tables.building import build_report
from experiments.reporting.tables.matching import context_of
from experiments.reporting.tables.report_model import MeasuredTable, Report
from experiments.reporting.tables.run_comparison import Comparison, ComparisonRow, compare_runs

__all__ = [
    "Collected",
    "Comparison",
    "ComparisonRow",
    "MeasuredTable",
    "Report",
    "build_report",
    "collect",
    "compare_runs",
    "context_of",
]
