"""Prognosis of new patients with a trained model."""
