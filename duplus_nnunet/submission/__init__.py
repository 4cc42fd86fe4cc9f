"""Sends trainings as jobs: to SLURM, or to processes of this machine."""
