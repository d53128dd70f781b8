"""The run folder: file names, record, state, lock, flags, mean weights, export. Not: recipes. No torch."""
