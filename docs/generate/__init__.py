"""Writes the generated parts of the documentation; `make reference` runs it."""
