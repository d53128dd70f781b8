"""Trainings by stock MMDetection: read without running anything, matched to a recipe, imported as runs."""
