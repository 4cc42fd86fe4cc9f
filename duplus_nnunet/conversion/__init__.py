"""Turns downloads of public datasets into raw datasets of nnU-Net: recipes in YAML, read by one engine."""
