"""Waits for nnU-Net to be imported, and then lets `plugin` make its changes.

It runs at every interpreter start, from the line that setup.py puts beside the package. It therefore imports nothing
that a bare interpreter has not imported and only compares the beginning of a module's name; `plugin` is imported
together with the first module of nnU-Net. DUPLUS_AUTOLOAD=0 switches it off.
"""

import sys

TYPE_CHECKING = False  # as in typing, whose import alone would cost more than all of this
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_HOST = "nnunetv2."


class HostWatcher:
    """A meta path finder that returns what the other finders find, and has `plugin` change some of those modules."""

    is_damaged = False

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return the spec of a module that `plugin` changes, set to be changed after its execution; otherwise None."""
        if not name.startswith(_HOST) or not self._is_changed(name):
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find else None
            if spec is not None:
                _change_after_execution(spec.loader)
                return spec
        return None

    def _is_changed(self, name: str) -> bool:
        if self.is_damaged:
            return False
        try:
            from duplus_nnunet import plugin
        except Exception as error:
            self.is_damaged = True  # warn once, not for each module of nnU-Net
            _warn_damaged(error)
            return False
        return plugin.is_changed(name)


def _warn_damaged(error: Exception) -> None:
    import warnings

    warnings.warn(
        f"DuPLUS cannot be loaded ({type(error).__name__}: {error}); nnU-Net runs without it. Reinstall it with "
        "`pip install --force-reinstall --no-deps duplus-nnunet`, or remove it with `pip uninstall duplus-nnunet`.",
        RuntimeWarning,
        stacklevel=2,
    )


def _change_after_execution(loader: "Loader | None") -> None:
    execute = getattr(loader, "exec_module", None)
    if execute is None:
        return

    def exec_module(module: "ModuleType") -> None:
        from duplus_nnunet import plugin

        execute(module)
        plugin.change(module)

    loader.exec_module = exec_module  # type: ignore[union-attr, method-assign]


def start() -> None:
    """Begin to watch for nnU-Net; does nothing in a process that already watches."""
    if not is_live():
        sys.meta_path.insert(0, HostWatcher())


def is_live() -> bool:
    """Report whether this process watches for nnU-Net."""
    return any(isinstance(finder, HostWatcher) for finder in sys.meta_path)
