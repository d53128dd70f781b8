"""Run folders to statistics, statistics to tables. Imports pandas: not for a command's start."""

from experiments.reporting.building import build_report
from experiments.reporting.collect import Collected, collect
from experiments.reporting.compare import Comparison, ComparisonRow, comparison
from experiments.reporting.matching import context_of
from experiments.reporting.tables import MeasuredTable, Report

__all__ = [
    "Collected",
    "Comparison",
    "ComparisonRow",
    "MeasuredTable",
    "Report",
    "build_report",
    "collect",
    "comparison",
    "context_of",
]
