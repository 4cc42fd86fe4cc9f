"""A trained base and its adapters: planning for a base, adapters on disk, and one model out of several."""
