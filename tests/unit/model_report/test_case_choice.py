"""Which cases a report shows, read from the files of small models."""

import json
from dataclasses import replace

import numpy as np
import pytest

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.model_report.across_contexts import plan_across_contexts
from duplus_nnunet.model_report.case_files import HELD_OUT, OTHER, TEST, TRAINING, OtherImages, find_cases
from duplus_nnunet.model_report.case_reading import read_case
from duplus_nnunet.model_report.fold_files import FoldSource
from duplus_nnunet.model_report.gathering import ReportSource
from duplus_nnunet.model_report.prompt_switch import plan_prompt_switch
from duplus_nnunet.model_report.viewer_plan import choose_case
from duplus_nnunet.model_report.viewer_sections import make_viewer_sections
from duplus_nnunet.model_report.worst_cases import plan_worst_cases
from duplus_nnunet.prompt_bank import PromptBank, encode_vector
from duplus_nnunet.reporting.aggregate import aggregate
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.score_files import write_scores
from duplus_nnunet.reporting.target_scores import TargetScore
from duplus_nnunet.trainers.training_cases import TrainingCases

from ..conftest import write_volume

SHAPE = (6, 8, 10)
TARGETS = ("liver", "spleen")
CONTEXTS = {"toy_ct": "computed tomography", "toy_mr": "magnetic resonance imaging"}


def make_plans():
    contexts, texts = {}, list(TARGETS)
    for key, modality in CONTEXTS.items():
        prompts = {name: [f"A {modality} of {name}"] for name in TARGETS}
        contexts[key] = {"sentences": [f"A {modality} of abdomen"], "target_prompts": prompts, "modality": modality}
        contexts[key]["targets"] = list(TARGETS)
        texts += [contexts[key]["sentences"][0], *(sentences[0] for sentences in prompts.values())]
    vectors = {text: encode_vector(np.eye(len(texts))[row]) for row, text in enumerate(texts)}
    centre = {"centre": encode_vector(np.zeros(len(texts))), "scale": 1.0}
    section = {
        "version": 1,
        "default_context": "toy_ct",
        "contexts": contexts,
        "targets": [{"name": name, "label": name} for name in TARGETS],
        "centres": dict.fromkeys(("context", "sentence", "name"), centre),
        "embeddings": vectors,
    }
    return {"dataset_name": "Dataset001_Toy", "image_reader_writer": "SimpleITKIO", "duplus": section}


def make_labels(liver_rows):
    """Make a label map with a liver (1) of some rows on the first axis, and a spleen (2) in one corner."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[:2, :liver_rows, :4] = 1
    labels[4:, -2:, -2:] = 2
    return labels


@pytest.fixture
def source(tmp_path):
    """Make a model with two validated cases of CT, one of which is predicted badly, and one training case of MR."""
    raw, fold = tmp_path / "raw", tmp_path / "model" / "fold_0"
    for name in ("ct_1", "ct_2", "mr_1"):
        write_volume(raw / "imagesTr" / f"{name}_0000.nii.gz", np.full(SHAPE, 50.0, np.float32))
        write_volume(raw / "labelsTr" / f"{name}.nii.gz", make_labels(4))
    write_volume(fold / "validation" / "ct_1.nii.gz", make_labels(4))
    write_volume(fold / "validation" / "ct_2.nii.gz", make_labels(2))
    kinds = {"CT": "toy_ct", "MR": "toy_mr"}
    table = CaseTable(
        {name: Source("Dataset001_Toy", context, TARGETS, ("x",)) for name, context in kinds.items()},
        {name: Case(name[:2].upper(), name, TARGETS, TARGETS) for name in ("ct_1", "ct_2", "mr_1")},
    )
    dices = {"ct_1": (1.0, 1.0), "ct_2": (2 / 3, 1.0)}
    scored = {name: [TargetScore(dice, dice, True, True) for dice in values] for name, values in dices.items()}
    scores = {
        name: CaseScore("CT", name, (1.0, 1.0, 1.0), dict(zip(TARGETS, values, strict=True)))
        for name, values in scored.items()
    }
    trained = TrainingCases("Dataset001_Toy", "0", ("mr_1",), ("mr_1",))
    plans, labels = make_plans(), {"background": 0, "liver": 1, "spleen": 2}
    return ReportSource(
        tmp_path / "model", True, "Dataset001_Toy", plans, {"labels": labels, "file_ending": ".nii.gz"},
        PromptBank(plans), table=table, raw=raw,
        folds=[FoldSource("0", fold, "checkpoint_final.pth", training_cases=trained, scores=scores)],
    )  # fmt: skip


def find(model, name):
    return next(case for case in model.cases if case.name == name)


def test_the_origin_of_each_case_is_known(source):
    model = find_cases(source)
    assert {case.name: (case.origin, case.context) for case in model.cases} == {
        "ct_1": (HELD_OUT, "toy_ct"), "ct_2": (HELD_OUT, "toy_ct"), "mr_1": (TRAINING, "toy_mr"),
    }  # fmt: skip


def test_a_test_image_needs_an_entry_in_the_table_where_there_are_several_contexts(source):
    write_volume(source.raw / "imagesTs" / "ct_9_0000.nii.gz", np.zeros(SHAPE, np.float32))
    assert "ct_9" not in [case.name for case in find_cases(source).cases]
    table = replace(source.table, tests={"ct_9": Case("CT", "ct_9", (), ())})
    assert find(find_cases(replace(source, table=table)), "ct_9").origin == TEST


def test_the_prompt_switch_shows_a_case_of_each_context(source):
    plan = plan_prompt_switch(find_cases(source))
    assert [(panel.case.name, panel.targets) for panel in plan.panels] == [("ct_2", TARGETS), ("mr_1", TARGETS)]


def test_a_case_with_the_target_is_chosen(source):
    model = find_cases(source)
    without = replace(find(model, "ct_1"), case=Case("CT", "ct_1", TARGETS, ("spleen",)))
    assert choose_case(model, [without, find(model, "ct_2")], "liver").name == "ct_2"
    assert choose_case(model, [without], "liver") is None


def test_one_target_is_shown_in_every_context(source):
    plan = plan_across_contexts(find_cases(source))
    assert [(panel.case.context, panel.targets) for panel in plan.panels] == [
        ("toy_ct", ("liver",)), ("toy_mr", ("liver",)),
    ]  # fmt: skip


def test_the_worst_case_comes_first_with_its_worst_target(source):
    plan = plan_worst_cases(find_cases(source))
    assert (plan.panels[0].case.name, plan.panels[0].targets) == ("ct_2", ("liver",))


@pytest.fixture
def scored(source, tmp_path):
    """Add a scored prediction of a test image; returns the model and scores.json."""
    write_volume(source.raw / "imagesTs" / "ct_9_0000.nii.gz", np.zeros(SHAPE, np.float32))
    write_volume(source.raw / "labelsTs" / "ct_9.nii.gz", make_labels(4))
    folder = tmp_path / "predictions"
    write_volume(folder / "ct_9.nii.gz", make_labels(1))
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "spleen": 2}}))
    targets = {"liver": TargetScore(0.4, 0.3, True, True), "spleen": TargetScore(1.0, 1.0, True, True)}
    write_scores(aggregate({"ct_9": CaseScore("CT", "ct_9", (1.0, 1.0, 1.0), targets)}, 2.0), folder)
    table = replace(source.table, tests={"ct_9": Case("CT", "ct_9", TARGETS, TARGETS)})
    return replace(source, table=table), folder / "scores.json"


def test_scored_predictions_are_shown_and_not_made_again(scored):
    model = find_cases(scored[0], scores=scored[1])
    assert find(model, "ct_9").prediction == scored[1].parent / "ct_9.nii.gz"
    assert find(model, "ct_1").prediction.parent.name == "validation"
    plan = plan_worst_cases(model)
    assert [(panel.case.name, panel.targets) for panel in plan.panels] == [
        ("ct_9", ("liver",)), ("ct_2", ("liver",)), ("ct_1", ("liver",)),
    ]  # fmt: skip
    assert len(model.notes) == 1


@pytest.mark.parametrize("labels", [{"background": 0, "liver": 2, "spleen": 1}, {"liver": 1}, None])
def test_label_maps_with_other_labels_than_the_models_are_not_shown(scored, labels):
    file = scored[1].parent / "dataset.json"
    file.unlink() if labels is None else file.write_text(json.dumps({"labels": labels}))
    model = find_cases(scored[0], scores=scored[1])
    assert find(model, "ct_9").prediction is None
    assert len(model.notes) == 1


def test_scores_of_training_cases_are_not_among_the_worst(scored):
    write_volume(scored[1].parent / "mr_1.nii.gz", make_labels(1))
    content = json.loads(scored[1].read_text())
    content["cases"]["mr_1"] = content["cases"]["ct_9"]
    scored[1].write_text(json.dumps(content))
    model = find_cases(scored[0], scores=scored[1])
    assert find(model, "mr_1").prediction is None
    assert "mr_1" not in [panel.case.name for panel in plan_worst_cases(model).panels]


def test_a_model_that_was_not_validated_says_that_there_are_no_worst_cases(source):
    plan = plan_worst_cases(find_cases(replace(source, folds=[])))
    assert not plan.panels
    assert plan.reason


def test_masks_are_turned_so_that_the_patients_right_is_on_the_left(source):
    """The axes of the files run to the patient's left, back and head, so that nothing is turned."""
    model = find_cases(source)
    shown = read_case(model, find(model, "ct_2"), TARGETS, {})
    liver = shown.masks[0]
    assert np.array_equal(liver.truth, make_labels(4)[list(shown.levels)] == 1)
    assert np.array_equal(liver.prediction, make_labels(2)[list(shown.levels)] == 1)
    assert (liver.note, liver.prompt) == ("Dice 0.67", "A computed tomography of liver")
    assert shown.spacing == pytest.approx((2.5, 0.8, 0.7))


def test_an_image_whose_axes_run_the_other_way_is_turned(source):
    flipped = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
    for folder, name, values in (
        (source.raw / "imagesTr", "ct_1_0000", np.full(SHAPE, 50.0, np.float32)),
        (source.raw / "labelsTr", "ct_1", make_labels(4)),
        (source.folds[0].validation, "ct_1", make_labels(4)),
    ):
        write_volume(folder / f"{name}.nii.gz", values, flipped)
    model = find_cases(source)
    shown = read_case(model, find(model, "ct_1"), ("liver",), {})
    assert np.array_equal(shown.masks[0].truth, (make_labels(4) == 1)[list(shown.levels), ::-1, ::-1])


def test_a_target_that_was_not_annotated_has_no_truth(source):
    model = find_cases(source)
    case = replace(find(model, "ct_1"), case=Case("CT", "ct_1", ("spleen",), ("spleen",)))
    liver, spleen = read_case(model, case, TARGETS, {}).masks
    assert liver.truth is None
    assert (liver.note, spleen.note) == ("", "Dice 1.00")


def test_voxels_with_the_ignore_label_do_not_count(source):
    labels = make_labels(4)
    labels[:2, 2:4, :4] = 3
    write_volume(source.raw / "labelsTr" / "ct_2.nii.gz", labels)
    known = {**source.dataset_json, "labels": {**source.dataset_json["labels"], "ignore": 3}}
    model = find_cases(replace(source, dataset_json=known))
    assert read_case(model, find(model, "ct_2"), ("liver",), {}).masks[0].note == "Dice 1.00"


def test_a_label_map_on_another_grid_is_refused(source):
    write_volume(source.raw / "labelsTr" / "ct_1.nii.gz", np.zeros((6, 8, 9), np.uint8))
    model = find_cases(source)
    with pytest.raises(DataError, match=r"labelsTr.*grid"):
        read_case(model, find(model, "ct_1"), TARGETS, {})


def test_a_case_that_cannot_be_read_is_named_and_the_others_are_shown(source):
    (source.raw / "imagesTr" / "ct_2_0000.nii.gz").write_bytes(b"damaged")
    sections = make_viewer_sections(find_cases(source), most=0)
    warnings = [block.text for block in sections[0].blocks if getattr(block, "kind", "") == "warning"]
    assert any("ct_2" in text for text in warnings)
    assert [case.title.split(",")[1] for case in sections[0].blocks[-1].cases] == [" case mr_1"]


def test_a_dataset_without_a_model_is_shown_with_its_truth(source):
    sections = make_viewer_sections(find_cases(replace(source, is_model=False, folds=[])))
    mask = sections[0].blocks[-1].cases[0].masks[0]
    assert mask.prediction is None
    assert mask.truth.any()


def test_without_raw_data_the_report_says_why_there_are_no_images(source):
    lost = replace(source, raw=None, missing={"raw": "nnUNet_raw is not set."})
    first = make_viewer_sections(find_cases(lost))[0]
    assert "nnUNet_raw is not set." in first.blocks[0].text


def test_other_images_have_the_contexts_that_are_given(source, tmp_path):
    (tmp_path / "contexts.json").write_text(json.dumps({"ct_1": "toy_ct", "ct_2": "toy_mr", "mr_1": "toy_mr"}))
    other = OtherImages(source.raw / "imagesTr", source.raw / "labelsTr", str(tmp_path / "contexts.json"))
    cases = find_cases(source, other).cases
    assert {case.name: case.context for case in cases} == {"ct_1": "toy_ct", "ct_2": "toy_mr", "mr_1": "toy_mr"}
    assert {case.origin for case in cases} == {OTHER}


@pytest.mark.parametrize(
    ("folder", "labels", "context", "error"),
    [
        ("imagesTr", None, None, DataError),
        ("imagesTr", None, "toy_pet", PromptError),
        ("imagesTr", "imagesTr", "toy_ct", DataError),
        ("missing", None, "toy_ct", DataError),
        ("labelsTr", None, "toy_ct", DataError),
    ],
)
def test_other_images_that_are_not_complete_are_refused(source, folder, labels, context, error):
    other = OtherImages(source.raw / folder, None if labels is None else source.raw / labels, context)
    with pytest.raises(error):
        find_cases(source, other)


def test_a_stock_model_has_no_prompts_to_show(source):
    with pytest.raises(DataError):
        find_cases(replace(source, bank=None))
