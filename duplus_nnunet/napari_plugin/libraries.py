"""Loads PyTorch into a process that draws with OpenGL."""

import importlib.util
import os
import sys


def load_torch() -> None:
    """Import PyTorch, after Triton in a way in which its LLVM cannot be mixed up with that of the graphics driver.

    Triton contains an LLVM whose symbols have the names of those in the LLVM that Mesa's drivers (AMD, Intel, software)
    have loaded before, if a window was shown. Without this, importing it ends the process with a segmentation fault.
    """
    if "torch" in sys.modules or "triton" in sys.modules or not hasattr(os, "RTLD_DEEPBIND"):
        return
    if importlib.util.find_spec("triton") is not None:
        before = sys.getdlopenflags()
        sys.setdlopenflags(before | os.RTLD_DEEPBIND)
        try:
            import triton  # type: ignore[import-untyped, unused-ignore] # noqa: F401
        finally:
            sys.setdlopenflags(before)
    import torch  # noqa: F401
