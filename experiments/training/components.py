"""Register everything that msdet's configs name, so that stock MMDetection can run them, too."""

from experiments import detection  # noqa: F401  (first: installs operators before MMDetection is imported)
from experiments.training import datasets, metrics  # noqa: F401
from experiments.training.engine import fast, loop, precision  # noqa: F401
from experiments.training.hooks import checkpointing, progress  # noqa: F401
