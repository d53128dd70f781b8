"""Figures of runs, drawn with matplotlib: not for a command's start."""

from experiments.reporting.figures.curves import draw_training_curves, make_labels
from experiments.reporting.figures.gallery import build_figure_sections, draw_runs, make_stem

__all__ = ["build_figure_sections", "draw_runs", "draw_training_curves", "make_labels", "make_stem"]
