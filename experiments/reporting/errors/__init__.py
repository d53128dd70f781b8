"""AP taken apart by class, object size and pyramid level, and detections drawn side by side."""

from experiments.reporting.errors.page import sections

__all__ = ["sections"]
