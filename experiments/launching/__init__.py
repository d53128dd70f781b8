"""From planned runs to processes: plan, queue, retries, GPU leases, torchrun, Slurm. No torch, no training code."""
