"""MMEngine's runner, loop, sampler and checkpoints, made exactly resumable, and the ways to stop them."""
