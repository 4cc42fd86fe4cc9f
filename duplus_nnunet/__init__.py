"""DuPLUS for nnU-Net v2. Imported at every interpreter start by the hook, so nothing else may stand here."""

__version__ = "0.1.0"
