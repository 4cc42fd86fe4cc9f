"""Prognosis from images and electronic health records; this package reads and checks the records."""
