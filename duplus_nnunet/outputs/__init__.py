"""Writes predictions to files: masks, probability maps, statistics, previews, legends and a manifest."""
