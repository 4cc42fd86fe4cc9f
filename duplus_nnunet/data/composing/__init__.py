"""Composing: in come raw datasets and a specification, out comes one raw dataset with the targets of all."""
