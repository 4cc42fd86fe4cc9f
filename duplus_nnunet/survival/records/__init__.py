"""Clinical tables: schema, drafting, checking, encoding, outcomes and folds of patients."""
