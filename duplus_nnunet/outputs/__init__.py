"""What is written of a prediction: in come answers, out come files."""
