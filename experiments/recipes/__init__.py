"""What a person writes: recipes, profiles and tables in YAML, found, merged, checked. No torch, no runs."""
