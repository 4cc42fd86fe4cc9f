"""The sub-commands of `duplus`, one module each: `add_parser` declares it, and its `run` imports what it needs."""
