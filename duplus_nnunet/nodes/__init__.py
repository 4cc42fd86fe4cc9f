"""Processes of one training on several GPUs and nodes: how they were started, find each other, and end together."""
