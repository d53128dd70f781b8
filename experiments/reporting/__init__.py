"""Run folders to statistics, tables, figures and files. Not for a command's start: importing it takes time."""

from experiments.reporting.collect import collect, collect_folders
from experiments.reporting.render.records import report_frame
from experiments.reporting.tables.building import build_report, build_run_tables
from experiments.reporting.tables.report_model import MeasuredTable, Report

__all__ = [
    "MeasuredTable",
    "Report",
    "build_report",
    "build_run_tables",
    "collect",
    "collect_folders",
    "report_frame",
]
