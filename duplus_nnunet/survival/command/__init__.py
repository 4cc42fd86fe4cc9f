"""The command `duplus survival`."""
