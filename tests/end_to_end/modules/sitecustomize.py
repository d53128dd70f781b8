"""Lets a Slurm job start `counting_worker.py`, beside this file, in the place of the worker."""

import sys
from pathlib import Path

if "submitit.core._submit" in sys.orig_argv:
    from experiments.launching import local

    local.BOOT = Path(__file__).with_name("counting_worker.py").read_text(encoding="utf-8")
