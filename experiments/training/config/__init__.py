"""From a recipe to the MMEngine config that a worker runs. Nothing here trains."""
