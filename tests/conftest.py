"""What holds for all tests."""

from hypothesis import settings

# How long an example takes says more about the machine, and what else it does, than about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
