"""Data: tables of cases, composed datasets, how often cases are drawn, and generated bodies for demonstrations."""
