"""Which file the prompts of a dataset come from, and the errors if it does not match."""

import re
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.errors import RegistryError
from duplus_nnunet.prompt_registry import find_entry, search_entry
from duplus_nnunet.prompt_registry.finding import SHIPPED_FOLDER, find_by_name, find_targets, name_origin

HIPPOCAMPUS = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "Anterior": 1, "Posterior": 2}}
DEMO = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "LK": 1, "RK": 2, "ignore": 3}}
DEMO_FILE = """\
dataset: Demo
contexts:
  demo_ct: {modality: computed tomography, region: abdomen}
targets:
  left kidney: {labels: [LK]}
  right kidney: {labels: [RK]}
"""


def put(folder: Path, text: str = DEMO_FILE, name: str = "prompts.yaml") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def labelled(*names: str, channel: str = "CT") -> dict[str, Any]:
    return {
        "channel_names": {"0": channel},
        "labels": {"background": 0, **{name: value for value, name in enumerate(names, start=1)}},
    }


def test_a_shipped_file_is_found_by_name() -> None:
    entry = find_entry("Dataset004_Hippocampus", HIPPOCAMPUS)
    assert entry.origin.endswith("msd_hippocampus.yaml")
    assert [target.label for target in entry.targets] == ["Anterior", "Posterior"]
    assert entry.dataset == "Dataset004_Hippocampus"


def test_the_number_does_not_count() -> None:
    assert find_entry("Dataset777_Hippocampus", HIPPOCAMPUS).origin.endswith("msd_hippocampus.yaml")


def test_a_shipped_file_with_other_labels_is_passed_over_with_the_reason() -> None:
    search = search_entry("Dataset004_Hippocampus", labelled("Anterior", "Tail", channel="MRI"))
    assert search.entry.origin.startswith("drafted from")
    assert "'Tail'" in " ".join(search.explanations)


def test_a_shipped_file_of_another_modality_is_passed_over_with_the_reason() -> None:
    search = search_entry("Dataset009_Spleen", labelled("spleen", channel="T2"))
    assert search.entry.origin.startswith("drafted from")
    assert re.search(r"computed tomography, .*magnetic resonance imaging", " ".join(search.explanations))


def test_of_two_files_of_a_name_the_fitting_one_is_taken() -> None:
    labels = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}
    entry = find_entry("Dataset220_KiTS", {"channel_names": {"0": "CT"}, "labels": labels})
    assert entry.origin.endswith("kits2023.yaml")
    assert [target.name for target in entry.targets] == ["kidney with masses", "kidney mass", "kidney tumor"]


def test_regions_are_targets_and_background_and_ignore_are_not(tmp_path: Path) -> None:
    labels = {"background": 0, "LK": [1, 2], "RK": 2, "ignore": 3}
    entry = find_entry("Dataset501_Demo", {**DEMO, "labels": labels}, put(tmp_path))
    assert [target.name for target in entry.targets] == ["left kidney", "right kidney"]


def test_targets_come_in_the_order_of_dataset_json(tmp_path: Path) -> None:
    entry = find_entry("Dataset501_Demo", labelled("RK", "LK"), put(tmp_path))
    assert [target.label for target in entry.targets] == ["RK", "LK"]


def test_the_file_beside_dataset_json_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, folder = put(tmp_path / "raw"), put(tmp_path / "registry", name="demo.yaml")
    monkeypatch.setenv("DUPLUS_REGISTRY", str(folder))
    assert find_entry("Dataset501_Demo", DEMO, beside).origin == str(beside / "prompts.yaml")


def test_the_file_beside_dataset_json_needs_no_matching_name(tmp_path: Path) -> None:
    assert find_entry("Dataset501_Otherwise", DEMO, put(tmp_path)).origin.endswith("prompts.yaml")


def test_the_users_folder_wins_over_the_shipped_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = DEMO_FILE.replace("Demo", "Hippocampus").replace("LK", "Anterior").replace("RK", "Posterior")
    monkeypatch.setenv("DUPLUS_REGISTRY", str(put(tmp_path, text, "mine.yaml")))
    assert find_entry("Dataset004_Hippocampus", HIPPOCAMPUS).origin == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        (str(SHIPPED_FOLDER / "msd_hippocampus.yaml"), "shipped: msd_hippocampus.yaml"),
        ("/home/someone/raw/Dataset501_Demo/prompts.yaml", "file: Dataset501_Demo/prompts.yaml"),
        ("drafted from /home/someone/raw/Dataset501_Demo/dataset.json", "drafted from dataset.json"),
    ],
)
def test_an_origin_is_named_without_a_path_of_the_machine(origin: str, name: str) -> None:
    assert name_origin(origin) == name


def test_a_file_in_the_users_folder_serves_only_its_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUPLUS_REGISTRY", str(put(tmp_path, name="demo.yaml")))
    search = search_entry("Dataset502_Other", DEMO)
    assert search.entry.origin.startswith("drafted")
    assert re.search(r"\b1 files .*'Dataset502_Other'", " ".join(search.explanations))


def test_a_users_folder_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUPLUS_REGISTRY", str(tmp_path / "none"))
    with pytest.raises(RegistryError, match=r"DUPLUS_REGISTRY .*not a folder"):
        find_entry("Dataset501_Demo", DEMO)


def test_a_label_without_an_entry_is_an_error_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"prompts.yaml:4: .*'liver' .*labels: \[liver\]"):
        find_entry("Dataset501_Demo", labelled("LK", "RK", "liver"), put(tmp_path))


def test_an_entry_without_a_label_is_an_error_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"prompts.yaml:6: .*'right kidney' .*'LK'"):
        find_entry("Dataset501_Demo", labelled("LK"), put(tmp_path))


def test_a_partial_file_may_have_more_targets_than_labels(tmp_path: Path) -> None:
    entry = find_entry("Dataset501_Demo", labelled("LK"), put(tmp_path, "partial: true\n" + DEMO_FILE))
    assert [target.name for target in entry.targets] == ["left kidney"]
    assert entry.targets[0].partner is None


def test_two_labels_of_one_target_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"'LK' and 'left kidney' .*'left kidney'"):
        find_entry("Dataset501_Demo", labelled("LK", "left kidney", "RK"), put(tmp_path))


def test_a_broken_users_file_is_an_error_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"prompts.yaml:1: "):
        find_entry("Dataset501_Demo", DEMO, put(tmp_path, "[]"))


def test_all_misfits_of_a_users_file_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(RegistryError) as caught:
        find_entry("Dataset501_Demo", labelled("LK", "liver"), put(tmp_path))
    assert len(str(caught.value).splitlines()) == 2


def test_labels_that_collide_after_normalising_are_an_error() -> None:
    with pytest.raises(RegistryError, match=r"'Left_Kidney' and 'left kidney'"):
        find_entry("Dataset501_Demo", labelled("Left_Kidney", "left kidney"))


@pytest.mark.parametrize("labels", [{"background": 0}, {"background": 0, "ignore": 1}, {}])
def test_a_dataset_without_foreground_is_an_error(labels: dict[str, int]) -> None:
    with pytest.raises(RegistryError, match=r"no foreground label"):
        find_entry("Dataset501_Demo", {"labels": labels})


def test_labels_of_nnunet_1_are_an_error_with_the_remedy() -> None:
    with pytest.raises(RegistryError, match=r'nnU-Net 1.*{"liver": 1}'):
        find_entry("Dataset501_Demo", {"labels": {"0": "background", "1": "liver"}})


def test_labels_that_are_no_mapping_are_an_error() -> None:
    with pytest.raises(RegistryError, match=r'expected "labels" to be a mapping'):
        find_entry("Dataset501_Demo", {"labels": ["liver"]})


@pytest.mark.parametrize(("channel", "context"), [("CT", "sarcoma_ct"), ("MRI", "sarcoma_mr"), ("T1", "sarcoma_mr")])
def test_the_only_channel_chooses_the_context(channel: str, context: str) -> None:
    entry = find_entry("Dataset060_SarcomaCT", labelled("tumor", channel=channel))
    assert list(entry.contexts) == [context]
    assert entry.default_context == context


def test_a_named_sequence_chooses_its_context() -> None:
    entry = find_entry("Dataset038_CHAOS", labelled("liver", "right kidney", "left kidney", "spleen", channel="T2"))
    assert list(entry.contexts) == ["chaos_t2"]


def test_an_unclear_channel_keeps_all_contexts() -> None:
    entry = find_entry("Dataset038_CHAOS", labelled("liver", "right kidney", "left kidney", "spleen", channel="MRI"))
    assert list(entry.contexts) == ["chaos_t1_in", "chaos_t1_out", "chaos_t2"]


def test_several_channels_keep_the_default_context() -> None:
    channels = {"channel_names": {"0": "CT", "1": "CT"}, "labels": {"background": 0, "tumor": 1}}
    assert find_entry("Dataset221_AutoPETII_2023", channels).default_context == "autopet_pet_ct"


def test_organs_not_annotated_are_told_from_absent_ones() -> None:
    labels = labelled("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Mandible", "Larynx", "Esophagus")
    entry = find_entry("Dataset050_HeadNeckCT", labels)
    assert {target.missing for target in entry.targets} == {"not annotated"}


def test_a_bare_word_names_no_dataset_with_a_number() -> None:
    assert find_by_name("spleen") is None
    assert find_by_name("Task09_Spleen") is not None


def test_a_target_is_found_in_every_dataset_that_has_it() -> None:
    datasets = {file.form.dataset for file, _ in find_targets("RK")}
    assert {"BTCV", "AMOS CT", "CHAOS"} <= datasets
