"""Parts of DuPLUSSurvivalTrainer."""
