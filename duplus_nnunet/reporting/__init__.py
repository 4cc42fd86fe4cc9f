"""What a run is shown by: scores, tables and figures."""
