"""Predicts new patients by a trained survival model."""
