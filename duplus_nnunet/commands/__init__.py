"""The sub-commands of `duplus`, a module each: `add_parser` declares one, and what it runs imports what it needs."""
