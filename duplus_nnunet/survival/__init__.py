"""Prognosis from images and electronic health records (EHR)."""
