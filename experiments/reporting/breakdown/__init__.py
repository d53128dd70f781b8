"""AP taken apart by class, object size and pyramid level, and detections drawn side by side."""

from experiments.reporting.breakdown.breakdown_page import sections

__all__ = ["sections"]
