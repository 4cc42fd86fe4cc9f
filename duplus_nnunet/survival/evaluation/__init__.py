"""Cross-validation of survival models: metrics, intervals, calibration, risk groups and attribution."""
