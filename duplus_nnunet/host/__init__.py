"""Checks which nnU-Net is installed, and whether it offers what this package uses of it."""
