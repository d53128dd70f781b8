"""Runs on a Slurm cluster: options, submission, jobs and their states. submitit writes the job files."""
