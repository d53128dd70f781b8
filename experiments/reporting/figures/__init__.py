"""Figures of runs, drawn with matplotlib: not for a command's start."""

from experiments.reporting.figures.gallery import Names, pictures_of_runs, sections

__all__ = ["Names", "pictures_of_runs", "sections"]
