"""The command line of `duplus survival`."""
