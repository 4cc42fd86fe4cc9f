"""Measurements of lesions in masks and PET, exported as a table for models of prognosis."""
