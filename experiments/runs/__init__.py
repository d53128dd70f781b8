"""The run folder: names, record, state, lock, flags, mean weights, export, removal. Not: recipes. No torch."""
