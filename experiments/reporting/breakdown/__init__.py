"""AP by class, object size and pyramid level, and detections drawn side by side. No tables."""

from experiments.reporting.breakdown.breakdown_page import build_breakdown_sections

__all__ = ["build_breakdown_sections"]
