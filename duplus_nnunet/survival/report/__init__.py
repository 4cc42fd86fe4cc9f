"""A cross-validation as a model card, tables, JSON and figures."""
