"""Data: tables of cases, composed datasets, sampling of cases, plausibility of images, and generated phantoms."""
