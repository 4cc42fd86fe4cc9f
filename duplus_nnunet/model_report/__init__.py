"""The report on a trained model, or on a dataset, that a reader opens in a browser: one HTML file."""
