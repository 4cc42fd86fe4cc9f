"""Runs commands in processes that have what nnU-Net depends on imported already; nnU-Net and this package they import.

Six seconds of every command are the import of torch and the like, always the same. A server imports them once and forks
a process for each command, which runs the console script, with the hook of this package live, as in any process of this
environment. The worker processes that a command spawns are forked too, from a copy of its process at its beginning, by
multiprocessing's own fork server; like spawned ones they share nothing with the command, and import nnU-Net themselves.

Client and server speak in lines of JSON: the call in, the exit code out.
"""

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from multiprocessing import context, forkserver, resource_tracker, util
from pathlib import Path
from types import ModuleType
from typing import Any

# None of them may begin threads, which would not come along into a forked process.
MODULES = (
    "torch", "torch._dynamo", "scipy.ndimage", "scipy.stats", "skimage.measure", "skimage.morphology",
    "skimage.transform", "sklearn.model_selection", "sklearn.linear_model", "pandas", "matplotlib.pyplot", "seaborn",
    "nibabel", "SimpleITK", "tifffile", "imagecodecs", "cc3d", "blosc2", "acvl_utils.cropping_and_padding.padding",
    "batchgenerators.dataloading.multi_threaded_augmenter", "dynamic_network_architectures.architectures.unet",
    "batchgeneratorsv2.transforms.utils.compose", "httpx", "pydantic", "yaml",
)  # fmt: skip
# Planning draws 10e7 voxels with replacement, however small the dataset, and sorts them for ten seconds. Here it draws
# 10,000 from each case, which is the default of nnU-Net's function that draws them.
EXTRACTOR = "nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor"
VOXELS = 10_000


class Server:
    """The server, as the tests see it; it ends with them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, words: Sequence[str], cwd: Path, environment: Mapping[str, str], out: Path, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a console script to its end, or end it when its time is over.

        Args:
            words: The script and its arguments.
            cwd: Where it runs.
            environment: All of its variables.
            out: Folder for what it prints.
            timeout: In seconds.
        """
        files = [out / name for name in ("stdout.txt", "stderr.txt")]
        call = {"words": list(words), "cwd": str(cwd), "environment": dict(environment), "timeout": timeout}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**call, "files": [str(file) for file in files]}) + "\n")
        self._process.stdin.flush()
        code = json.loads(self._process.stdout.readline())
        printed = (file.read_text(encoding="utf-8", errors="replace") for file in files)
        if code == -signal.SIGALRM:
            raise subprocess.TimeoutExpired(list(words), timeout, *printed)
        return subprocess.CompletedProcess(list(words), code, *printed)

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def serve() -> dict[str, Any] | None:
    """Fork a process for each call that comes in.

    Returns:
        In such a process its call; in the server nothing, once the tests have ended.
    """
    for name in MODULES:
        importlib.import_module(name)
    sys.modules["matplotlib"].rcParams["savefig.dpi"] = 10  # nnU-Net draws a large figure after each epoch
    sys.meta_path.insert(0, FewerVoxels())
    resource_tracker.ensure_running()  # one for all commands
    gc.freeze()  # a collection in a forked process would copy all that it shares with the server
    for line in sys.stdin:
        call: dict[str, Any] = json.loads(line)
        child = os.fork()
        if child == 0:
            return call
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
    return None


class FewerVoxels(MetaPathFinder):
    """Lets nnU-Net's extraction of fingerprints draw fewer voxels, once a command imports it."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Find that module by the other finders, and change what it makes."""
        if fullname != EXTRACTOR:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            extractor = module.DatasetFingerprintExtractor
            run = extractor.run

            def run_with_fewer(self: Any, *arguments: Any, **options: Any) -> Any:
                self.num_foreground_voxels_for_intensitystats = VOXELS * len(self.dataset)
                return run(self, *arguments, **options)

            extractor.run = run_with_fewer

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


def become(call: dict[str, Any]) -> None:
    """Make this process the one of a call."""
    sources = (
        os.open(os.devnull, os.O_RDONLY),
        *(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for file in call["files"]),
    )
    for number, source in enumerate(sources):
        os.dup2(source, number)
        os.close(source)
    os.chdir(call["cwd"])
    os.environ.clear()
    os.environ.update(call["environment"])
    signal.setitimer(signal.ITIMER_REAL, call["timeout"])
    sys.argv = call["words"]
    sys.path[0] = str(Path(call["words"][0]).parent)
    fork_workers()
    # Not as the main module: a spawned worker imports that again, for seconds, and needs nothing of it.
    script = Path(call["words"][0])
    exec(compile(script.read_text(encoding="utf-8"), script, "exec"), {"__name__": "__main__"})  # noqa: S102


def fork_workers() -> None:
    """Let workers that are spawned from now on begin as forks of this process as it is now."""
    spawn = util.spawnv_passfds
    util.spawnv_passfds = _fork_into
    forkserver.set_forkserver_preload([])
    forkserver.ensure_running()
    util.spawnv_passfds = spawn
    context._concrete_contexts["spawn"] = context._concrete_contexts["forkserver"]
    util.Finalize(None, forkserver._forkserver._stop, exitpriority=-100)  # after the workers' own end


def _fork_into(_: str, arguments: Sequence[str], inherited: Sequence[int]) -> int:
    """Stand in for the start of a new interpreter: fork, keep what it would inherit, and run its code."""
    child = os.fork()
    if child == 0:
        try:
            for number in set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2, *inherited}:
                with contextlib.suppress(OSError):  # the listing's own
                    os.close(number)
            exec(arguments[-1], {})  # noqa: S102
        finally:
            os._exit(0)
    return child


if __name__ == "__main__":
    asked = serve()
    if asked is not None:
        become(asked)
