"""Prognosis from images and clinical records."""
