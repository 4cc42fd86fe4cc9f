"""Scores predictions against references, and reports the scores as files, tables and figures."""
