"""Survival models: losses, networks, ensembles, and the baselines they are compared with."""
