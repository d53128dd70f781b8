"""From a recipe to a trained detector: the MMEngine config, the worker process, its hooks."""
