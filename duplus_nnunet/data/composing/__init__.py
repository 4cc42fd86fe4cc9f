"""Composes several raw datasets into one that has the targets of all of them."""
