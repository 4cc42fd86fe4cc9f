"""Predicts files into a folder: lists, reads, predicts and writes the cases, and records them in a manifest."""

from collections.abc import Iterable
from typing import Any

from duplus_nnunet.inference.binding import BoundModel
from duplus_nnunet.inference.case_list import PredictionCall
from duplus_nnunet.inference.cluster_run import predict_on_cluster
from duplus_nnunet.inference.folder_run import FolderPrediction
from duplus_nnunet.inference.images import check_source
from duplus_nnunet.inference.reading import PreparedCase
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.inference.staging import stage_output


def predict_files(bound: BoundModel, call: PredictionCall, selection: Selection | None = None) -> list[Any] | None:
    """Predict files, or the jobs of a table.

    Args:
        bound: The model and what is asked of it; its options name the table of jobs, if there is one.
        call: What is predicted and where it goes.
        selection: What was asked for as it was typed; needed for a table of jobs, and for a prediction over a cluster.

    Returns:
        Label maps, and probabilities if they were asked for, where there is no output; else None for each case. None
        if there was nothing to do, a table of jobs, or a prediction over a cluster.

    Raises:
        DataError: At the end, if cases failed; at once, if there is no case, the table of jobs is not valid, another
            process predicts into the folder, the disk is full, or the output folder was predicted with another model
            or other prompts and is to be continued.
        PromptError: The model does not know a context or target of a job.
        HostError: A package that a URL or a cluster needs is not installed.
    """
    selection = Selection(options=bound.options) if selection is None else selection
    with stage_output(call) as staged:
        run = FolderPrediction(bound, staged)
        with run.lock_output():
            if bound.options.jobs is None:
                check_source(staged.source, bound.model.dataset_json)
            groups = run.plan(selection)
            if selection.cluster is None:
                results = [run.predict_group(group) for group in groups]
            else:
                predict_on_cluster(run, groups, selection)
                results = []
        run.failures.raise_if_any(run.cases)
    return results[0] if bound.options.jobs is None and results else None


def predict_items(bound: BoundModel, items: Iterable[PreparedCase], save_probabilities: bool) -> list[Any]:
    """Predict preprocessed cases, and write or return each as `predict_files` does.

    Raises:
        DataError: At the end, if cases failed; at once, if the disk is full.
    """
    run = FolderPrediction(bound, PredictionCall([], None, save_probabilities))
    with run.lock_output():
        results = run.predict_items(bound, items)
    run.failures.raise_if_any(run.cases)
    return results
