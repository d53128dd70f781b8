"""Figures of runs, drawn with matplotlib: not for a command's start."""

from experiments.reporting.figures.curves import labels_of, training_curves
from experiments.reporting.figures.gallery import new_stem, pictures_of_runs, sections

__all__ = ["labels_of", "new_stem", "pictures_of_runs", "sections", "training_curves"]
