"""Figures of runs, drawn with matplotlib: not for a command's start."""
