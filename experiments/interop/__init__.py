"""Trainings by stock MMDetection: read without running code, matched to a recipe, imported as runs. No torch."""
