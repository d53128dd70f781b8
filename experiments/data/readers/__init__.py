"""The one place that reads annotations, for training, evaluation, `verify`, `predict` and `errors`.

Not: judging what was read (`inspection`), choosing what to train on (`selection`), or anything that needs torch.
"""

from experiments.data.readers.annotations import Annotations, Box, Image
from experiments.data.readers.parts import list_part_files, read_split

__all__ = ["Annotations", "Box", "Image", "list_part_files", "read_split"]
