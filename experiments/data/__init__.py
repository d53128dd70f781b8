"""Data sets, built in or in COCO or VOC format: find, verify, generate. No torch, no MMDetection."""
