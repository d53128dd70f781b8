"""AP by class, object size and pyramid level, and detections drawn side by side. No tables."""

from experiments.reporting.breakdown.breakdown_page import sections

__all__ = ["sections"]
