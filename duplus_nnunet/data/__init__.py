"""Generated data: bodies with known truth, for demonstrations and tests."""
