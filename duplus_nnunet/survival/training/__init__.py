"""What DuPLUSSurvivalTrainer is made of."""
