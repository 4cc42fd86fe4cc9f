"""Adapts a trained base to new datasets: planning for a base, adapters on disk, and joining them to one model."""
