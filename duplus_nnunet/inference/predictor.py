"""Prediction from Python: an image, as a file, an object or an array, becomes named masks on its grid.

Example:
    predictor = DuPLUSPredictor.from_folder("MODEL_FOLDER", folds=(0,))
    prediction = predictor.predict("scan.nii.gz", targets=["liver", "spleen"], context="amos_ct")
    prediction.masks["liver"].sum(), prediction.volumes["liver"], prediction.to_nibabel("liver")
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.inference.answering import LEAST_LOGIT, answer_case, read_geometry
from duplus_nnunet.inference.binding import BoundModel, bind
from duplus_nnunet.inference.devices import choose_device
from duplus_nnunet.inference.dicom_input import DicomInput, open_dicom_image
from duplus_nnunet.inference.given_images import list_files, list_own_files
from duplus_nnunet.inference.kept_maps import KeptMaps
from duplus_nnunet.inference.memory import read_memory
from duplus_nnunet.inference.model import LoadedModel, load_model
from duplus_nnunet.inference.model_folder import CHECKPOINT_NAME, ModelFiles
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.prediction import Prediction, Volume
from duplus_nnunet.inference.reading import InputCase, PreparedCase, Reader
from duplus_nnunet.inference.scan import Opened, Scan, Source
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.inference.windows import WindowPredictor
from duplus_nnunet.prompt_bank import PromptBank


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
        >>> with predictor.open(image_file) as scan:  # the network looks once
        ...     scan.segment("left kidney").shape, scan.volume("right kidney") >= 0
        ((24, 24, 24), True)
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
            mirroring: Whether mirror images are predicted too and averaged, if the model was trained with them: slower.
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

    @property
    def words(self) -> dict[str, list[str]]:
        """Names, then labels and synonyms, by which the targets of each context may be asked for."""
        bank = self._model.bank
        return {name: bank.words_in(name) for name in bank.contexts}

    @property
    def channels(self) -> list[str]:
        """Names of the channels of an image, one file or layer each."""
        dataset_json = self._model.dataset_json
        return list(dataset_json.get("channel_names", dataset_json.get("modality", {})).values())

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

    def open(
        self,
        image: Any,
        context: str | None = None,
        *,
        memory: str = "2GB",
        mirror: bool = False,
        series: str | None = None,
        rivals: str | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Scan:
        """Let the network look at an image once, so that questions about it are answered quickly.

        Args:
            image: As for `predict`. A file that changes while it is open is refused.
            context: As for `predict`; another context needs another call.
            memory: For what the network computed, compressed; beyond it, a temporary file is used, see TMPDIR.
            mirror: Whether mirror images are predicted too, as `predict` does unless the predictor was told not to:
                up to eight times the time and memory.
            series: As for `predict`.
            rivals: As for `predict`.
            progress: Called before each window with how many were predicted, and how many there are in each fold.

        Returns:
            The opened image, which is to be closed: `with predictor.open(...) as scan`.

        Raises:
            DataError: As for `predict`.
            PromptError: The model does not know the context.
        """
        options = self._options if rivals is None else replace(self._options, rivals=rivals)
        dicom = open_dicom_image(image, series) if isinstance(image, (str, os.PathLike)) else None
        if dicom is not None:
            context = dicom.choose_one_context(self._model.bank.contexts, context)
        source = Source.of(image, list_own_files(image) if dicom is None else dicom.images[0].slices)
        maps = KeptMaps(read_memory(memory), progress=progress)
        try:
            with self._lock, torch.inference_mode(), self._mirror(mirror):
                bank = self._model.bank
                name = bank.require_context(context) if context is None else bank.find_context(context)
                bound = bind(self._model, Selection(_choose_opening(bank, name), name, options=options))
                case = self._read(bound, image, dicom)
                question = bound.question_of(case.properties)
                self._model.predictor.predict_kept(case.data, question.prompts, maps)
        except BaseException:
            maps.close()
            raise
        maps.progress, maps.calls_again = None, 0

        def answer(question: tuple[tuple[str, ...], tuple[str, ...]]) -> Prediction:
            selection = Selection(question[0], name, question[1], options=options)
            with torch.inference_mode(), self._mirror(mirror):
                return Prediction(answer_case(self._bind(selection), case, 0.0, maps).answer)

        def read() -> Volume:
            return self._read_again(image, dicom)

        def reopen(other: str, progress: Callable[[int, int], object] | None) -> Scan:
            return self.open(
                image, other, memory=memory, mirror=mirror, series=series, rivals=rivals, progress=progress
            )

        opened = Opened(
            context=name,
            targets=tuple(bank.names_in(name)),
            words=tuple(bank.words_in(name)),
            contexts=tuple(bank.contexts),
            geometry=read_geometry(self._model.plans, case.properties),
            mirror=mirror,
            source=source,
            lock=self._lock,
            answer=answer,
            read=read,
            reopen=reopen,
        )
        return Scan(opened, maps)

    @contextmanager
    def _mirror(self, wanted: bool) -> Iterator[None]:
        """Let the predictor predict mirror images, or not."""
        predictor = self._model.predictor
        before, predictor.use_mirroring = predictor.use_mirroring, wanted
        try:
            yield
        finally:
            predictor.use_mirroring = before

    def _read_again(self, image: Any, dicom: DicomInput | None) -> Volume:
        """Read an image without preprocessing it, as (C, D, H, W)."""
        made = None if dicom is None else dicom.images[0]
        if made is not None:
            made.write()
        try:
            with list_files(image if made is None else made.file) as files:
                values, _ = self._model.plans.image_reader_writer_class().read_images(list(files))
        finally:
            if made is not None:
                made.remove()
        return np.asarray(values)

    def _read(self, bound: BoundModel, image: Any, dicom: DicomInput | None) -> PreparedCase:
        """Read and preprocess an image.

        Raises:
            DataError: It cannot be read.
        """
        made = None if dicom is None else dicom.images[0]
        reader = Reader(self._model.plans, self._model.configuration, bound.declare_all())
        with list_files(image if made is None else made.file) as files:
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


def _choose_opening(bank: PromptBank, context: str) -> tuple[str, ...]:
    """Choose the targets that an image is opened with: one of each adapter, since each has features of its own."""
    names = bank.names_in(context)
    owners = bank.find_adapters(context, names) or ("",) * len(names)
    return tuple({owner: name for name, owner in reversed(list(zip(names, owners, strict=True)))}.values())
