"""Importing this registers everything that msdet's configs name, so that stock MMDetection can run them, too."""

from experiments import detection  # noqa: F401  (first: installs operators before MMDetection is imported)
from experiments.training import checkpoints, datasets, loop, metrics, precision, progress, sampling  # noqa: F401
