"""What a run is shown by: figures."""
