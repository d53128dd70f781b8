"""What a run saves and shows while it works: checkpoints, progress files, trackers."""
