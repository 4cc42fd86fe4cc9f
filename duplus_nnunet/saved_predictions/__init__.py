"""Reads folders of predictions back: a table over their images, and the calibration of their probabilities."""
