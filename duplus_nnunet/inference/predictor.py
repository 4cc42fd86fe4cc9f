"""Prediction from Python: an image, as a file, an object or an array, becomes named masks on its grid.

Example:
    predictor = DuPLUSPredictor.from_folder("MODEL_FOLDER", folds=(0,))
    prediction = predictor.predict("scan.nii.gz", targets=["liver", "spleen"], context="amos_ct")
    prediction.masks["liver"].sum(), prediction.volumes["liver"], prediction.to_nibabel("liver")
"""

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError, PromptError, describe_unknown
from duplus_nnunet.inference.answering import LEAST_LOGIT, answer_case
from duplus_nnunet.inference.binding import BoundModel, bind
from duplus_nnunet.inference.devices import choose_device
from duplus_nnunet.inference.dicom_input import DicomInput, open_dicom_image
from duplus_nnunet.inference.model import LoadedModel, load_model
from duplus_nnunet.inference.model_folder import CHECKPOINT_NAME, ModelFiles
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.reading import InputCase, PreparedCase, Reader
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.inference.windows import WindowPredictor
from duplus_nnunet.outputs.answer import CaseAnswer, Removal, TargetAnswer
from duplus_nnunet.outputs.probabilities import to_probabilities
from duplus_nnunet.outputs.world import find_affine

Volume = NDArray[Any]
# (D, H, W), or (C, D, H, W) with several channels; and the size of a voxel along (D, H, W), in mm.
ArrayWithSpacing = tuple[Volume, Sequence[float]]


@dataclass(frozen=True)
class Prediction:
    """The prediction of one image; arrays are in the order (z, y, x).

    Attributes:
        answer: All of it, targets in their boxes.
    """

    answer: CaseAnswer

    @property
    def context(self) -> str:
        """Name of the context in which the image was predicted."""
        return self.answer.context

    @property
    def labels(self) -> Volume:
        """Combined label map, nnU-Net's way."""
        return self.answer.labels

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Size of a voxel along (z, y, x), in mm."""
        return self.answer.geometry.spacing

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """From indices (z, y, x) to world coordinates in mm (RAS); None if the file has none."""
        return find_affine(self.answer.geometry)

    @cached_property
    def masks(self) -> Mapping[str, NDArray[np.bool_]]:
        """Mask of each target on the whole grid; one that is not in the image is empty."""
        return {target.name: self._spread(target, target.mask, np.bool_) for target in self.answer.targets}

    @property
    def volumes(self) -> dict[str, float]:
        """Volume of each target, in ml."""
        voxel = float(np.prod(self.spacing)) / 1000
        return {target.name: float(np.count_nonzero(target.mask)) * voxel for target in self.answer.targets}

    @property
    def presence(self) -> dict[str, float | None]:
        """Probability, 0 to 1, that each target is in the image at all; None if the model was not calibrated."""
        return {target.name: target.presence for target in self.answer.targets}

    @property
    def removed(self) -> Mapping[str, Removal]:
        """What the options keep_largest and remove_small removed, by target."""
        return {removal.target: removal for removal in self.answer.removed}

    def write_dicom(
        self, base: str | os.PathLike[str], slices: Sequence[str | os.PathLike[str]], formats: Sequence[str]
    ) -> tuple[Path, ...]:
        """Write DICOM files that refer to the series that the image was made from.

        Args:
            base: File name to which an ending is added, such as `_seg.dcm`.
            slices: Every file of the series, in any order.
            formats: Some of `dicom-seg`, `dicom-labelmap` and `rtstruct`.

        Returns:
            The files. Targets that are not in the image are left out; if none is there, so is the file.

        Raises:
            DataError: The slices are not one series, or the image has no world coordinates.
            HostError: The extra `dicom` is not installed.
        """
        from duplus_nnunet.inference.dicom_output import write_dicom

        return write_dicom(self.answer, slices, Path(base), formats).files

    def probabilities(self, name: str) -> NDArray[np.float16]:
        """Return a target's probabilities on the whole grid; 0 where they were not kept, see `predict`."""
        target = self._find(name)
        return self._spread(target, to_probabilities(target.logits), np.float16)

    def to_nibabel(self, name: str | None = None) -> Any:
        """Return a mask, or the label map, as a NIfTI image of nibabel.

        Raises:
            DataError: The image has no world coordinates.
        """
        import nibabel

        affine = self.affine
        if affine is None:
            raise DataError("The image has no world coordinates, so that its masks cannot be made a NIfTI image.")
        values = self._choose(name).transpose(2, 1, 0)
        return nibabel.Nifti1Image(values, affine[:, [2, 1, 0, 3]])

    def to_sitk(self, name: str | None = None) -> Any:
        """Return a mask, or the label map, as an image of SimpleITK."""
        import SimpleITK

        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(self._choose(name)))
        affine = self.affine
        if affine is None:
            image.SetSpacing([float(width) for width in self.spacing[::-1]])
            return image
        to_lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3][:, [2, 1, 0, 3]]
        widths = np.linalg.norm(to_lps[:, :3], axis=0)
        image.SetSpacing(widths.tolist())
        image.SetDirection((to_lps[:, :3] / widths).ravel().tolist())
        image.SetOrigin(to_lps[:, 3].tolist())
        return image

    def _choose(self, name: str | None) -> Volume:
        return self.labels if name is None else self._spread(self._find(name), self._find(name).mask, np.uint8)

    def _find(self, name: str) -> TargetAnswer:
        targets = {target.name: target for target in self.answer.targets}
        if name not in targets:
            raise PromptError(describe_unknown("target", name, targets))
        return targets[name]

    def _spread(self, target: TargetAnswer, values: Volume, dtype: Any) -> Volume:
        whole = np.zeros(self.answer.geometry.shape, dtype)
        whole[target.box] = values
        return whole


class DuPLUSPredictor:
    """A trained model in memory; predicts one image after another. Make one with `from_folder`.

    It may be used by several threads: calls wait for one another, since they share one network, and each gets its own
    answer. Threads that are to predict at the same time need a predictor each. A prediction does not change any more,
    and may be read by all.

    Example:
        >>> predictor = DuPLUSPredictor.from_folder(model_folder, folds=(0,), device="cpu")
        >>> predictor.contexts
        {'tinyct_ct': ['tumour', 'left kidney', 'right kidney']}
        >>> prediction = predictor.predict(image_file, targets=["left kidney"])
        >>> prediction.labels.shape, prediction.spacing  # in the order (z, y, x), in mm
        ((24, 24, 24), (4.0, 4.0, 4.0))
        >>> prediction.masks["left kidney"].dtype, list(prediction.volumes)
        (dtype('bool'), ['left kidney'])
        >>> prediction.to_nibabel("left kidney").shape
        (24, 24, 24)
    """

    def __init__(self, model: LoadedModel, options: Options) -> None:
        self._model, self._options = model, options
        self._lock = threading.Lock()
        self._last: tuple[Selection, BoundModel] | None = None

    @classmethod
    def from_folder(
        cls,
        model: str | os.PathLike[str],
        folds: Sequence[int | str] | None = None,
        *,
        checkpoint: str = CHECKPOINT_NAME,
        device: str | None = None,
        mirroring: bool = True,
        step_size: float = 0.5,
        options: Options | None = None,
    ) -> "DuPLUSPredictor":
        """Load a model.

        Args:
            model: Model folder, with plans.json and fold_X.
            folds: Folds whose logits are averaged; None is all that are available.
            checkpoint: File name within each fold.
            device: `cpu`, `cuda` or `mps`; None is CUDA if there is one.
            mirroring: Whether mirror images are predicted too and averaged: slower, slightly more accurate.
            step_size: Distance between windows, as a share of their size, above 0 to 1.
            options: Memory, precision and adapters; options that ask for files have no effect here.

        Raises:
            ModelError: The folder does not hold a DuPLUS model, or is incomplete.
            HostError: nnU-Net was not changed by the start-up hook.
        """
        wanted = options or Options()
        files = ModelFiles(Path(model), None if folds is None else tuple(folds), checkpoint, wanted.adapters)
        chosen = choose_device(None if device is None else str(device))
        predictor = WindowPredictor(step_size, use_mirroring=mirroring, device=chosen, allow_tqdm=False)
        return cls(load_model(predictor, files, wanted.precision), wanted)

    @property
    def contexts(self) -> dict[str, list[str]]:
        """Targets that the model was trained on, by context."""
        bank = self._model.bank
        return {name: bank.names_in(name) for name in bank.contexts}

    def predict(
        self,
        image: Any,
        targets: Sequence[str] = (),
        context: str | None = None,
        prompts: Sequence[str] = (),
        *,
        probabilities: bool = False,
        rivals: str | None = None,
        series: str | None = None,
    ) -> Prediction:
        """Predict one image.

        Args:
            image: A file, or a list of one per channel; a folder or zip file of a DICOM series; an image of nibabel or
                SimpleITK; or an array with its spacing, see ArrayWithSpacing, whose last axis is assumed to run to the
                patient's left, and the one before to the back.
            targets: Names or synonyms; none is all of the context, or with prompts none but those.
            context: Name of the context; not needed if the model has one only, or if the headers of a DICOM series
                decide it.
            prompts: Texts of structures that the model was not trained on. They get the voxels that trained targets
                leave, unless options.prompt_priority is `probability`.
            probabilities: Whether probabilities down to 1 % are kept, instead of those above one half.
            rivals: `all`: voxels are settled among all targets of the context, so that a mask does not depend on the
                other targets of this call; `asked`: among those of this call alone. None is what the options say.
            series: Of several DICOM series, which one: its number, modality, or a pattern of its description; None: the
                only one that can be read.

        Raises:
            DataError: The image cannot be read, or the memory is too little; or there are several DICOM series.
            PromptError: The model does not know a target or context.
        """
        if isinstance(targets, str) or isinstance(prompts, str):
            raise PromptError("targets and prompts are lists of texts, such as targets=['liver'].")
        options = self._options if rivals is None else replace(self._options, rivals=rivals)
        selection = Selection(tuple(targets), context, tuple(prompts), options=options)
        dicom = open_dicom_image(image, series) if isinstance(image, (str, os.PathLike)) else None
        if dicom is not None:
            selection = replace(selection, context=dicom.choose_one_context(self._model.bank.contexts, context))
        with self._lock, torch.inference_mode():
            bound = self._bind(selection)
            case = self._read(bound, image, dicom)
            return Prediction(answer_case(bound, case, LEAST_LOGIT if probabilities else 0.0).answer)

    def _read(self, bound: BoundModel, image: Any, dicom: DicomInput | None) -> PreparedCase:
        """Read and preprocess an image.

        Raises:
            DataError: It cannot be read.
        """
        made = None if dicom is None else dicom.images[0]
        reader = Reader(self._model.plans, self._model.configuration, bound.declare_all())
        with _list_files(image if made is None else made.file) as files:
            source = InputCase("image", files, None, bound.first.context, dicom=made)
            case = reader.read(source)
        source.forget()
        if case.error:
            raise DataError(case.error)
        return case

    def _bind(self, selection: Selection) -> BoundModel:
        """Bind the model, unless the call before asked for the same."""
        if self._last is None or self._last[0] != selection:
            self._last = selection, bind(self._model, selection)
        return self._last[1]


@contextmanager
def _list_files(image: Any) -> Iterator[tuple[str, ...]]:
    """Give an image as files, which nnU-Net's reader reads as it does any other."""
    if isinstance(image, (str, os.PathLike)):
        yield (os.fspath(image),)
        return
    if isinstance(image, list) and all(isinstance(file, (str, os.PathLike)) for file in image):
        yield tuple(os.fspath(file) for file in image)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield tuple(_write_channels(image, Path(folder)))


def _write_channels(image: Any, folder: Path) -> Iterator[str]:
    if hasattr(image, "to_filename") and hasattr(image, "affine"):
        image.to_filename(folder / "image_0000.nii")
        yield str(folder / "image_0000.nii")
        return
    import SimpleITK

    for number, channel in enumerate([image] if isinstance(image, SimpleITK.Image) else _make_channels(image)):
        file = str(folder / f"image_{number:04d}.nii")
        SimpleITK.WriteImage(channel, file)
        yield file


def _make_channels(image: Any) -> Iterator[Any]:
    import SimpleITK

    try:
        values, spacing = image
        values, widths = np.asarray(values), [float(width) for width in spacing]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"The image is a {type(image).__name__}; expected a file, a list of files, an image of nibabel or "
            "SimpleITK, or a pair of an array and its spacing."
        ) from error
    if values.ndim not in (3, 4) or len(widths) != 3 or min(widths) <= 0:
        raise DataError(
            f"The array has shape {values.shape} and the spacing {tuple(widths)}; expected (D, H, W) or (C, D, H, W), "
            "and three numbers above 0 in mm along (D, H, W)."
        )
    for channel in values if values.ndim == 4 else values[None]:
        made = SimpleITK.GetImageFromArray(np.ascontiguousarray(channel, dtype=np.float32))
        made.SetSpacing(widths[::-1])
        yield made
