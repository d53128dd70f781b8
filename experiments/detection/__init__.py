"""What MMDetection lacks: level-weighted detectors and the hook that drives them, operators, models.

Importing it registers them, and changes nothing else of MMEngine or MMDetection.
"""

from experiments.detection import operators

operators.install()  # before anything of MMDetection is imported

from experiments.detection.level_weighting.hook import LevelWeightingHook, RuleParameterConstructor  # noqa: E402
from experiments.detection.level_weighting.level_weighted import (  # noqa: E402
    LEVEL_WEIGHTED,
    LevelWeighted,
    LevelWeightedTwoStage,
)
from experiments.detection.level_weighting.refusals import REASONS  # noqa: E402
from experiments.detection.models import augfpn, consistent_supervision  # noqa: E402, F401  (registered)
from experiments.detection.models.guided_loss import GuidedRetinaHead  # noqa: E402

__all__ = [
    "LEVEL_WEIGHTED",
    "REASONS",
    "GuidedRetinaHead",
    "LevelWeighted",
    "LevelWeightedTwoStage",
    "LevelWeightingHook",
    "RuleParameterConstructor",
    "operators",
]
