"""Runs on a Slurm cluster: options, submission, the job on its node, states. submitit writes the job files."""
