"""What happens between a recipe and a table: weighting, detection, data, training, launching, reporting."""
