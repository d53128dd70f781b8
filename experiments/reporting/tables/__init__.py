"""Runs matched to the rows of tables, and all that stands beside a number. In no format yet."""
