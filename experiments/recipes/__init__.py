"""Recipes, profiles, data set pages and tables in YAML: found, merged, checked. Not: what was run. No torch."""
