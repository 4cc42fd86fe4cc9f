"""Measures what a question about an opened image costs, beside an ordinary prediction of one target.

The image and the model are those of prediction.py: 256x256x200 voxels of 0.8 mm, a model of 60 targets planned at 1.5
mm with random weights. Everything is run and timed, then the logits are replaced by those of organ-like balls, so that
resampling and the settling of voxels among targets work as with a trained model. All is measured in one process,
alternately; medians are reported, and each mask is compared with that of the ordinary prediction.

Examples:
  python benchmarks/asking.py --json
  python benchmarks/asking.py --shape 96 96 80 --patch 48 --repeats 1    # small and quick
  python benchmarks/asking.py --device cuda --patch 128
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import prediction
import psutil
import torch

# Prompts of structures that the model does not know, each asked once.
TEXTS = (
    "A computed tomography of the renal pelvis",
    "A computed tomography of the thymus",
    "A computed tomography of the bronchi",
    "A computed tomography of the ureter",
    "A computed tomography of the appendix",
    "A computed tomography of the parathyroid glands",
)
SMALL = "32MB"


class Balls:
    """Replaces the logits of each target by those of a ball of its own, and adds up the time that this takes.

    Times are by the clock and of the processor, (2,): on a machine with other work, only the second is to be trusted.

    Args:
        model: The loaded model.
        context: Name of the context.
    """

    def __init__(self, model: Any, context: str) -> None:
        self.seconds = np.zeros(2)
        names = model.bank.names_in(context)
        self._rows = model.bank.draw(context, names).targets
        self._network = model.predictor.conditioned_network
        host = type(model.predictor).__mro__[1]
        self._predict = host.predict_logits_from_preprocessed_data
        host.predict_logits_from_preprocessed_data = lambda own, data: self._replace(own, data)

    def _replace(self, own: Any, data: torch.Tensor) -> torch.Tensor:
        shape = self._predict(own, data).shape
        started = read_clocks()
        values = []
        for number, row in enumerate(self._network.prompts.targets):
            same = (self._rows - row).abs().amax(1) < 1e-6
            values.append(int(same.nonzero()[0]) + 1 if same.any() else len(same) + 1 + number)
        logits = prediction.take_wanted(prediction.make_logits(tuple(data.shape[1:]), values), own)
        if logits.shape != shape:
            raise RuntimeError(f"The network gave {tuple(shape)} instead of {tuple(logits.shape)}.")
        self.seconds += read_clocks() - started
        return logits

    def time(self, call: Callable[[], Any]) -> tuple[Any, Any]:
        """Return the seconds that a call takes, without those of the balls, and its result."""
        before, started = self.seconds.copy(), read_clocks()
        result = call()
        return read_clocks() - started - (self.seconds - before), result


def read_clocks() -> Any:
    """Return seconds by the clock and of this process on all processors."""
    return np.array([time.perf_counter(), time.process_time()])


class Peak:
    """Watches the memory of this process in a thread."""

    def __init__(self) -> None:
        self._process, self._stop, self.most = psutil.Process(), threading.Event(), 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.most = max(self.most, self._process.memory_info().rss)

    def take(self) -> float:
        """Return the highest memory since the last call, in GiB."""
        most, self.most = max(self.most, self._process.memory_info().rss), 0
        return round(most / 2**30, 2)


def run(setting: prediction.Setting, folder: Path, repeats: int) -> dict[str, Any]:
    """Measure ordinary predictions and questions alternately."""
    for kind in prediction.FOLDERS:
        os.environ[f"nnUNet_{kind}"] = str(folder / kind)
        (folder / kind).mkdir()
    os.environ.setdefault("nnUNet_def_n_proc", "2")
    prediction.write_dataset(folder / "raw", setting)
    prediction.call("nnUNetv2_extract_fingerprint", "-d", prediction.NUMBER, "-np", os.environ["nnUNet_def_n_proc"])
    model = prediction.make_model(prediction.OURS, setting)
    prediction.write_image(folder / "images", setting, prediction.IMAGE_SPACING)
    return measure(model, folder / "images" / "phantom_0000.nii.gz", setting, repeats)


def measure(model: Path, image: Path, setting: prediction.Setting, repeats: int) -> dict[str, Any]:
    """Measure with a model that is there."""
    from duplus_nnunet.api import DuPLUSPredictor

    predictor = DuPLUSPredictor.from_folder(model, folds=(0,), device=setting.device, mirroring=False)
    (context,) = predictor.contexts
    balls, peak, names = Balls(predictor._model, context), Peak(), predictor.contexts[context]
    kinds = ("ordinary", "open", "further", "text", "open, small memory", "further, small memory")
    seconds: dict[str, list[Any]] = {kind: [] for kind in kinds}
    peaks: dict[str, list[float]] = {"ordinary": [], "asking": [], "asking, small memory": []}
    different, kept, encoder = 0, {}, np.zeros(2)

    def note(kind: str, call: Callable[[], Any]) -> Any:
        taken, result = balls.time(call)
        seconds[kind].append(taken)
        sys.stderr.write(f"{kind}: {taken[0]:.2f} s, of the processor {taken[1]:.2f} s\n")
        return result

    # What is loaded at the first use, and the text encoder, cost once what no repetition costs.
    predictor.predict(str(image), [names[0]])
    for number in range(repeats):
        peak.take()
        asked = names[1 + number]
        usual = note("ordinary", lambda asked=asked: predictor.predict(str(image), [asked]))
        peaks["ordinary"].append(peak.take())
        for suffix, memory in (("", "8GB"), (", small memory", SMALL)):
            scan = note(f"open{suffix}", lambda memory=memory: predictor.open(str(image), memory=memory))
            with scan:
                mask = note(f"further{suffix}", lambda scan=scan, asked=asked: scan.segment(asked))
                different += int((mask != usual.masks[asked]).sum())
                if not suffix:
                    text = TEXTS[number % len(TEXTS)]
                    if not number:
                        encoder, _ = balls.time(lambda scan=scan: scan.segment(prompt=TEXTS[-1]))
                    note("text", lambda scan=scan, text=text: scan.segment(prompt=text))
                for name in names[-2:]:
                    note(f"further{suffix}", lambda scan=scan, name=name: scan.segment(name))
                kept[f"kept{suffix}"] = vars(scan.kept)
            peaks[f"asking{suffix}"].append(peak.take())
    medians, busy = (
        {kind: float(np.median([value[column] for value in values])) for kind, values in seconds.items()}
        for column in (0, 1)
    )
    megavoxels = float(np.prod(setting.shape)) / 1e6
    return {
        "shape": setting.shape,
        "patch": setting.patch,
        "targets": len(names),
        "device": setting.device,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "seconds": {kind: round(value, 3) for kind, value in medians.items()},
        "seconds, first text with loading of its encoder": round(float(encoder[0]), 3),
        **{f"{kind} / ordinary": round(medians[kind] / medians["ordinary"], 4) for kind in kinds[1:]},
        "seconds of the processor": {kind: round(value, 3) for kind, value in busy.items()},
        "seconds of the processor / ordinary": {kind: round(busy[kind] / busy["ordinary"], 4) for kind in kinds[1:]},
        "processes ready to run, mean of the last 15 minutes": round(os.getloadavg()[2], 1),
        **kept,
        "kept bytes a megavoxel of the image": round(kept["kept"]["in_memory"] / megavoxels),
        "peak memory, GiB": {kind: max(values) for kind, values in peaks.items()},
        "voxels that differ from the ordinary prediction": different,
    }


def main() -> int:
    """Measure, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 200), help="voxels along x, y and z")
    parser.add_argument("--patch", type=int, default=96)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="number of repetitions; the median is reported")
    parser.add_argument("--json", action="store_true", help="print JSON on one line")
    args = parser.parse_args()
    setting = prediction.Setting(tuple(args.shape), args.patch, prediction.list_targets(), args.device)
    with tempfile.TemporaryDirectory() as folder:
        result = run(setting, Path(folder), args.repeats)
    print(json.dumps(result, indent=None if args.json else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
