"""What a run shows while it works: progress files and trackers."""
