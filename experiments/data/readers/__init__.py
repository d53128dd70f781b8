"""The one place that reads annotations. Training, evaluation, `verify`, `predict` and `errors` all see its result.

What belongs here: reading one format and giving every field its type. What does not: judging what was read
(`inspection`), choosing what is trained on (`selection`), or anything that needs torch.
"""

from experiments.data.readers.annotations import Annotations, Box, Image
from experiments.data.readers.parts import part_files, read_split

__all__ = ["Annotations", "Box", "Image", "part_files", "read_split"]
