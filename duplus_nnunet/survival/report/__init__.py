"""Reports of a cross-validation: model card, tables, JSON and figures."""
