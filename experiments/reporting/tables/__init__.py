"""Runs matched to rows of tables, and what a table shows of them. In no format yet."""
