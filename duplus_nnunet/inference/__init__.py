"""Prediction with a choice of targets, by nnU-Net's own predictor and commands."""
