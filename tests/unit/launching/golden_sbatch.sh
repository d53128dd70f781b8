#!/bin/bash

# Parameters
#SBATCH --account=vision
#SBATCH --array=0-2%2
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=16
#SBATCH --error=LOGS/%A_%a_0_log.err
#SBATCH --exclude=n1,n2
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --hold
#SBATCH --job-name=retinanet-r50-rlo
#SBATCH --mem=64G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=LOGS/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=low
#SBATCH --signal=USR2@120
#SBATCH --time=720

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output LOGS/%A_%a_%t_log.out --error LOGS/%A_%a_%t_log.err --cpus-per-task=16 PYTHON -u -c 'import os, sys; sys.path[:] = [p for p in sys.path if p] + [os.getcwd()]; import runpy; sys.argv = sys.argv[3:]; runpy.run_module(sys.argv[0], run_name="__main__")' -u -m submitit.core._submit LOGS
