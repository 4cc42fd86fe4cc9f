"""nnU-Net's predictor for DuPLUS models: its methods, called by stock commands and scripts, run our prediction."""

import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.binding import BoundModel, bind
from duplus_nnunet.inference.case_list import PredictionCall
from duplus_nnunet.inference.dicom_input import DicomInput, open_dicom
from duplus_nnunet.inference.folder_prediction import predict_files, predict_items
from duplus_nnunet.inference.free_text import describe_reading
from duplus_nnunet.inference.images import check_finite
from duplus_nnunet.inference.model import LoadedModel, load_model
from duplus_nnunet.inference.model_folder import CHECKPOINT_NAME, Folds, ModelFiles, is_ours
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.pace import Cost, Pace
from duplus_nnunet.inference.reading import to_prepared_case
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.inference.windows import WindowPredictor
from duplus_nnunet.networks.precision import has_bfloat16
from duplus_nnunet.plans_section import PLANS_KEY

# What nnU-Net's predictor takes for the images of cases, and for where predictions go.
_Source = str | list[list[str]]
_Output = str | list[str] | None


class HostPredictor(WindowPredictor):
    """nnU-Net's predictor with a DuPLUS model, bound to a selection when the model is loaded.

    With a stock model it becomes nnU-Net's own predictor, and refuses a selection. Its methods that predict wait for
    one another, if several threads call them: they share one network.

    Attributes:
        selection: What is asked of the model; a command's is set in a class of its own, see make_predictor_class.
        takes_stock: Whether a stock model is predicted with, too.
        was_used: Whether a predictor of the class was made.
    """

    selection: ClassVar[Selection] = Selection()
    takes_stock: ClassVar[bool] = True
    was_used: ClassVar[bool] = False
    _bound: BoundModel | None = None
    _pace: Pace | None = None  # on a CPU alone
    _dicom: DicomInput | None = None  # of the selection, without the series that are left out
    _lock: "AbstractContextManager[object]" = nullcontext()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        type(self).was_used = True

    @property
    def bound(self) -> BoundModel:
        """The model and what is asked of it.

        Raises:
            ModelError: No model was loaded.
        """
        if self._bound is None:
            raise ModelError("No model was loaded: call initialize_from_trained_model_folder first.")
        return self._bound

    def initialize_from_trained_model_folder(
        self, model_training_output_dir: str, use_folds: Folds, checkpoint_name: str = CHECKPOINT_NAME
    ) -> None:
        """Differs from nnU-Net: a DuPLUS model is checked, loaded with its adapters, and bound to the selection."""
        selection = self.selection
        if not is_ours(model_training_output_dir):
            _refuse(selection)
            if not self.takes_stock:
                raise ModelError(
                    f"{model_training_output_dir} does not hold a DuPLUS model: its plans.json has no part "
                    f"{PLANS_KEY!r}. nnU-Net would load its checkpoint without restrictions, so that the file could "
                    "run any code. If you trust where it comes from, add --allow-stock, or use nnUNetv2_predict."
                )
            self.__class__ = nnUNetPredictor
            self.initialize_from_trained_model_folder(model_training_output_dir, use_folds, checkpoint_name)
            return
        options = selection.options
        files = ModelFiles(Path(model_training_output_dir), use_folds, checkpoint_name, options.adapters)
        model = load_model(self, files, options.precision)
        if options.jobs is not None and selection.context is None:
            # Each job names its context; until then, any will do.
            selection = replace(selection, context=model.bank.default_context)
        if selection.dicom is not None and options.jobs is None:
            given = selection.context if isinstance(selection.context, str) else None
            dicom, choice = selection.dicom.choose_contexts(model.bank.contexts, given)
            selection = replace(selection, context=choice, dicom=dicom)
        self._dicom = selection.dicom
        self._bound = bind(model, selection)
        self._pace = Pace(self._find_cost(model)) if self.device.type == "cpu" else None
        self._lock = threading.RLock()
        self._show(self._bound)
        print_reading(self._bound)

    def _find_cost(self, model: LoadedModel) -> Cost:
        axes = self.allowed_mirroring_axes if self.use_mirroring else None
        unused = has_bfloat16() and not model.network.cpu_bfloat16
        return Cost(model.folds, 2 ** len(axes or ()), self.tile_step_size, unused)

    def _internal_get_sliding_window_slicers(self, image_size: tuple[int, ...]) -> Any:
        """Differs from nnU-Net: the number of windows is noted."""
        slicers = super()._internal_get_sliding_window_slicers(image_size)
        if self._pace is not None:
            self._pace.windows = len(slicers)
        return slicers

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        """Differs from nnU-Net: windows are timed, and cheaper settings suggested if a case is going to take long."""
        started = time.perf_counter()
        logits = super()._internal_maybe_mirror_and_predict(x)
        if self._pace is not None:
            sys.stdout.write(self._pace.add(time.perf_counter() - started))
        return logits

    def _show(self, bound: BoundModel) -> None:
        """Set what scripts read of nnU-Net's predictor: labels, configuration, and the prompts of the network."""
        model = bound.model
        model.network.bind(bound.first.prompts)
        self.configuration_manager = bound.configure(bound.first)
        self.dataset_json = bound.declare_all()
        self.label_manager = model.plans.get_label_manager(bound.declare([bound.first]))

    def predict_from_files(  # noqa: PLR0913, nnU-Net's signature
        self,
        list_of_lists_or_source_folder: _Source,
        output_folder_or_list_of_truncated_output_files: _Output,
        save_probabilities: bool = False,
        overwrite: bool = True,
        num_processes_preprocessing: int = default_num_processes,
        num_processes_segmentation_export: int = default_num_processes,
        folder_with_segs_from_prev_stage: str | None = None,
        num_parts: int = 1,
        part_id: int = 0,
    ) -> list[Any] | None:
        """Differs from nnU-Net: each case in its context; one that fails does not end the others; no processes."""
        unused = {
            "num_processes_preprocessing": num_processes_preprocessing,
            "num_processes_segmentation_export": num_processes_segmentation_export,
            "folder_with_segs_from_prev_stage": folder_with_segs_from_prev_stage,
        }
        source, output = list_of_lists_or_source_folder, output_folder_or_list_of_truncated_output_files
        return self._predict(
            PredictionCall(source, output, save_probabilities, overwrite, (part_id, num_parts), unused)
        )

    def predict_from_files_sequential(
        self,
        list_of_lists_or_source_folder: _Source,
        output_folder_or_list_of_truncated_output_files: _Output,
        save_probabilities: bool = False,
        overwrite: bool = True,
        folder_with_segs_from_prev_stage: str | None = None,
    ) -> list[Any] | None:
        """Differs from nnU-Net: the same as predict_from_files, which starts no processes either."""
        return self.predict_from_files(
            list_of_lists_or_source_folder,
            output_folder_or_list_of_truncated_output_files,
            save_probabilities,
            overwrite,
            folder_with_segs_from_prev_stage=folder_with_segs_from_prev_stage,
        )

    def _predict(self, call: PredictionCall) -> list[Any] | None:
        bound, urls = self.bound, self.selection.urls
        if isinstance(call.source, str):
            call = replace(call, source=urls.get(call.source, call.source))
        if isinstance(call.output, str):
            call = replace(call, output=urls.get(call.output, call.output))
        if isinstance(call.source, str) and bound.options.jobs is None:
            call = self._take_dicom(bound, call, call.source)
        with self._lock:
            try:
                return predict_files(bound, call, self.selection)
            finally:
                bound.model.network.bind(bound.first.prompts)

    def _take_dicom(self, bound: BoundModel, call: PredictionCall, source: str) -> PredictionCall:
        """Return a call with the DICOM series of its folder as cases; unchanged if the folder holds other images.

        Raises:
            DataError: A series cannot be read, or is of another modality than the context of the model.
        """
        if self._dicom is not None and self._dicom.source == source:
            return call.take_dicom(self._dicom)
        found = open_dicom(source, bound.options.series, bound.options.keep_ids)
        if found is None:
            return call
        found, _ = found.choose_contexts(bound.model.bank.contexts, bound.choice.default)
        return call.take_dicom(found)

    def predict_from_data_iterator(
        self,
        data_iterator: Iterable[Mapping[str, Any]],
        save_probabilities: bool = False,
        num_processes_segmentation_export: int = default_num_processes,
    ) -> list[Any]:
        """Differs from nnU-Net: each case is predicted in the context that it was preprocessed for."""
        with self._lock:
            return predict_items(self.bound, map(to_prepared_case, data_iterator), save_probabilities)

    def predict_single_npy_array(
        self,
        input_image: Any,
        image_properties: dict[str, Any],
        segmentation_previous_stage: Any = None,
        output_file_truncated: str | None = None,
        save_or_return_probabilities: bool = False,
    ) -> Any:
        """Differs from nnU-Net: an image whose left-right axis is not the training images' is not mirrored along it."""
        from duplus_nnunet.planners.orientation import find_image_turn

        plans = self.bound.model.plans
        reader = plans.plans["image_reader_writer"]
        how = find_image_turn(image_properties, self.bound.model.bank.form, plans.transpose_forward, reader)
        prompts = self.bound.question_of({PLANS_KEY: {"sides_known": how.sides_known}}).prompts
        network = self.bound.model.network
        with self._lock:
            network.bind(prompts)
            try:
                return super().predict_single_npy_array(
                    input_image,
                    image_properties,
                    segmentation_previous_stage,
                    output_file_truncated,
                    save_or_return_probabilities,
                )
            finally:
                network.bind(self.bound.first.prompts)

    def predict_logits_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        """Differs from nnU-Net: an image with NaN is refused, and so is one whose context cannot be known.

        Raises:
            DataError: The image has voxels that are not finite numbers.
            ModelError: The model is asked in several contexts.
        """
        if len(self.bound.questions) > 1:
            raise ModelError(
                f"The model is asked in {len(self.bound.questions)} contexts, and a preprocessed image alone does not "
                "show which is its own. Use predict_from_files, which knows the cases."
            )
        check_finite(data)
        with self._lock:
            logits: torch.Tensor = super().predict_logits_from_preprocessed_data(data)
        return logits


def make_predictor_class(selection: Selection, takes_stock: bool = True) -> type[HostPredictor]:
    """Make a predictor class for one call of a prediction command, which loads models bound to a selection.

    Args:
        selection: What is asked of the model.
        takes_stock: Whether a model that is not of this package is predicted with, too.
    """
    content = {"selection": selection, "takes_stock": takes_stock, "was_used": False}
    return type(HostPredictor.__name__, (HostPredictor,), content)


def print_reading(bound: BoundModel) -> None:
    """Print what the user's own texts stand for."""
    sys.stdout.write(describe_reading(bound.first.reading, bound.model.label_values))


def _refuse(selection: Selection) -> None:
    """Raise ModelError if something was asked of a stock model that only a DuPLUS model does."""
    others = selection.options != Options() or selection.dicom is not None or selection.cluster is not None
    if selection or others or selection.urls:
        asked: Sequence[str] | object = selection.targets or selection.prompts or selection.context
        given = repr(asked) if selection else "options such as --statistics, --ray or a URL"
        raise ModelError(
            f"Targets, prompts, a context or other options of DuPLUS were given ({given}), but the model is not a "
            "DuPLUS model and cannot do that. Leave out --targets, --prompt, --context, the other options and the "
            "variables DUPLUS_TARGETS, DUPLUS_PROMPT and DUPLUS_CONTEXT, or name a model of a DuPLUS trainer with -tr "
            "and -p."
        )
