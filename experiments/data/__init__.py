"""Data sets, built-in or in COCO or VOC format: find, read, verify, download, generate. Not: training. No torch."""
