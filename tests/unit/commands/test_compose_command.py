"""`duplus compose`: its output, when it has nothing to do, and that it never leaves incomplete datasets."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import SimpleITK

from duplus_nnunet.data.case_table import Case, read_case_table
from duplus_nnunet.data.composing import journal, processing
from duplus_nnunet.data.composing import labels as compose_labels
from duplus_nnunet.data.composing import write as compose_write
from duplus_nnunet.data.composing.labels import link_file
from duplus_nnunet.locks import hold
from duplus_nnunet.prompt_registry import Entry, find_entry
from duplus_nnunet.prompt_registry.implausible import find_implausible

from ..data.compose_calls import LEFT_HANDED, NOT_DRAWN, ORGANS, PET_CT, compose, fail, read, specify

WriteRaw = Callable[..., Path]


def array_of(file: Path) -> Any:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


@pytest.mark.usefixtures("sources")
def test_a_composed_dataset_has_all_that_nnunet_reads(raw: Path) -> None:
    assert compose("1", "2") == 0
    folder = raw / "Dataset501_All"
    assert read(folder, "dataset.json") == {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": 10,
        "file_ending": ".nii.gz",
    }
    assert sorted(path.name for path in (folder / "imagesTr").iterdir())[4:6] == [
        "A_a4_0000.nii.gz",
        "B_b0_0000.nii.gz",
    ]
    assert [path.name for path in sorted((folder / "labelsTs").iterdir())] == ["B_t0.nii.gz"]
    assert len(read(folder, "splits_final.json")) == 5
    assert not [path for path in raw.iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("sources")
def test_images_and_unchanged_labels_are_links_and_others_are_rewritten_on_their_grid(raw: Path) -> None:
    compose("1", "2")
    folder = raw / "Dataset501_All"
    assert (folder / "imagesTr" / "B_b1_0000.nii.gz").readlink() == raw / "Dataset002_B" / "imagesTr" / "b1_0000.nii.gz"
    assert (folder / "labelsTr" / "A_a0.nii.gz").is_symlink()
    label, source = folder / "labelsTr" / "B_b1.nii.gz", raw / "Dataset002_B" / "labelsTr" / "b1.nii.gz"
    assert not label.is_symlink()
    assert (array_of(label) == 2).all()
    new, old = SimpleITK.ReadImage(str(label)), SimpleITK.ReadImage(str(source))
    assert (new.GetSpacing(), new.GetOrigin(), new.GetDirection()) == (
        old.GetSpacing(),
        old.GetOrigin(),
        old.GetDirection(),
    )


@pytest.mark.usefixtures("sources")
def test_the_table_says_what_is_annotated_and_present(raw: Path) -> None:
    compose("1", "2")
    table = read_case_table(raw / "Dataset501_All")
    assert table is not None
    assert table.sources["B"].targets == ("liver", "spleen")
    assert table.find("A_a0") == Case("A", "A/a0", ("liver",), ("liver",))
    assert table.find("B_b1") == Case("B", "B/b1", ("liver", "spleen"), ("spleen",))
    assert table.tests["B_t0"].present == ("liver",)
    assert table.tests["B_t1"].annotated == ()


@pytest.mark.usefixtures("sources")
def test_all_contexts_and_targets_are_found_again(raw: Path) -> None:
    compose("1", "2")
    folder = raw / "Dataset501_All"
    entry = find_entry("Dataset501_All", read(folder, "dataset.json"), folder)
    assert list(entry.contexts) == ["a_ct", "b_ct"]
    assert [target.name for target in entry.targets] == ["liver", "spleen"]


def test_contexts_for_one_channel_each_survive_a_common_channel(write_raw: WriteRaw, raw: Path) -> None:
    write_raw("Dataset060_SarcomaCT", {f"a{i}": 1 for i in range(5)}, labels={"background": 0, "tumor": 1})
    write_raw("Dataset001_A", {f"b{i}": 1 for i in range(5)})
    assert compose("60", "1") == 0
    folder = raw / "Dataset501_All"
    assert list(find_entry("Dataset501_All", read(folder, "dataset.json"), folder).contexts) == ["sarcoma_ct", "a_ct"]


def test_an_organ_that_was_not_drawn_is_not_annotated(write_raw: WriteRaw, raw: Path) -> None:
    write_raw("Dataset001_A", {f"a{i}": i % 3 for i in range(6)}, labels=ORGANS, prompts=NOT_DRAWN)
    assert compose("1") == 0
    table = read_case_table(raw / "Dataset501_All")
    assert table is not None
    assert [table.cases[f"A_a{i}"].annotated for i in range(3)] == [(), ("liver",), ("spleen",)]


BRAIN = """\
dataset: Brain
contexts: {brain_mr: {modality: magnetic resonance imaging, region: brain}}
targets: {odd gyrus: {labels: [liver]}}
"""
LEG = """\
dataset: Leg
contexts: {leg_ct: {modality: computed tomography, region: calf}}
targets: {odd tendon: {labels: [liver], regions: [lower leg, foot]}}
"""


def compose_regions(write_raw: WriteRaw, raw: Path, *words: str, leg: str = LEG) -> Entry:
    write_raw("Dataset001_Brain", dict.fromkeys("abcde", 1), prompts=BRAIN)
    write_raw("Dataset002_Leg", dict.fromkeys("fghij", 1), prompts=leg)
    assert compose("1", "2", *words) == 0
    folder = raw / "Dataset501_All"
    return find_entry(folder.name, read(folder, "dataset.json"), folder)


def test_where_targets_lie_is_kept(write_raw: WriteRaw, raw: Path) -> None:
    entry = compose_regions(write_raw, raw)
    assert [target.regions for target in entry.targets] == [("head",), ("lower leg", "foot")]
    assert find_implausible(entry) == {"brain_mr": ("odd tendon",), "leg_ct": ("odd gyrus",)}


def test_a_target_of_an_unknown_part_of_the_body_stays_unknown(write_raw: WriteRaw, raw: Path) -> None:
    entry = compose_regions(write_raw, raw, leg=LEG.replace("calf", "odd").replace(", regions: [lower leg, foot]", ""))
    assert [target.regions for target in entry.targets] == [("head",), ()]
    assert find_implausible(entry) == {"brain_mr": (), "leg_ct": ()}


def test_the_specification_says_that_images_may_show_anything(write_raw: WriteRaw, raw: Path) -> None:
    entry = compose_regions(write_raw, raw, *specify("regions: {Leg: [anywhere]}"))
    assert entry.contexts["leg_ct"].regions == ("anywhere",)
    assert find_implausible(entry) == {"brain_mr": ("odd tendon",), "leg_ct": ()}


@pytest.mark.usefixtures("sources")
def test_a_record_without_a_later_key_of_the_specification_is_of_its_default(raw: Path) -> None:
    compose("1", "2")
    file = raw / "Dataset501_All" / "duplus_compose.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["specification"].pop("regions") == {}
    file.write_text(json.dumps(content), encoding="utf-8")
    assert compose("1", "2") == 0


@pytest.mark.usefixtures("sources")
def test_a_dry_run_shows_the_table_and_writes_nothing(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compose("1", "2", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert re.search(r"liver +1 +5/5 +5/1", shown)
    assert re.search(r"spleen +2 +- +5/2", shown)
    assert re.search(r"note: .*Dataset001_A .*drafted from", shown)
    assert "Nothing was written." in shown
    assert not (raw / "Dataset501_All").exists()
    assert compose("1", "2") == 0
    assert capsys.readouterr().out.splitlines()[:10] == shown.splitlines()[:10]


@pytest.mark.usefixtures("sources")
def test_composing_again_does_nothing_and_says_so(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compose("1", "2")
    before = (raw / "Dataset501_All").stat()
    capsys.readouterr()
    assert compose("1", "2") == 0
    assert "is up to date" in capsys.readouterr().out
    assert (raw / "Dataset501_All").stat() == before


@pytest.mark.usefixtures("sources")
def test_a_changed_source_is_noticed_and_replaced_on_request(
    raw: Path, write_raw: WriteRaw, capsys: pytest.CaptureFixture[str]
) -> None:
    compose("1", "2")
    write_raw("Dataset001_A", {"a9": 1})
    os.utime(raw / "Dataset002_B" / "labelsTr" / "b0.nii.gz", ns=(1, 1))
    error = fail(capsys, raw, "1", "2")
    assert "Dataset001_A: new: imagesTr/a9_0000.nii.gz, labelsTr/a9.nii.gz." in error
    assert "Dataset002_B: changed: labelsTr/b0.nii.gz." in error
    assert "add --overwrite" in error
    assert compose("1", "2", "--overwrite") == 0
    assert read(raw / "Dataset501_All", "dataset.json")["numTraining"] == 11
    assert compose("1", "2") == 0


@pytest.mark.usefixtures("sources")
def test_another_specification_or_other_sources_are_noticed(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compose("1", "2")
    assert "The specification differs: folds." in fail(capsys, raw, "1", "2", *specify("folds: 3"))
    assert re.search(r"Dataset001_A, Dataset002_B; now of Dataset002_B", fail(capsys, raw, "2"))


@pytest.mark.usefixtures("sources")
def test_a_file_that_has_gone_from_the_composed_dataset_is_noticed(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compose("1", "2")
    (raw / "Dataset501_All" / "labelsTr" / "B_b0.nii.gz").unlink()
    assert "labelsTr/B_b0.nii.gz is missing" in fail(capsys, raw, "1", "2")


@pytest.mark.usefixtures("sources")
def test_edited_prompts_are_kept_beside_the_new_ones(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compose("1", "2")
    prompts = raw / "Dataset501_All" / "prompts.yaml"
    prompts.write_text(prompts.read_text() + "# mine\n", encoding="utf-8")
    assert compose("1", "2", "--overwrite") == 0
    assert "# mine" in (raw / "Dataset501_All" / "prompts.before.yaml").read_text()
    assert "prompts.before.yaml" in capsys.readouterr().out


@pytest.mark.usefixtures("sources")
def test_what_was_not_composed_is_never_replaced(
    raw: Path, write_raw: WriteRaw, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw("Dataset501_All", {"x": 1})
    assert "Dataset501_All exists" in fail(capsys, raw, "1", "2", "--overwrite")


def test_several_channels_together_have_the_context_of_all(write_raw: WriteRaw, raw: Path) -> None:
    write_raw("Dataset221_AutoPET", {f"p{i}": 1 for i in range(5)}, **PET_CT)
    assert compose("221") == 0
    table = read_case_table(raw / "Dataset501_All")
    assert table is not None
    assert table.sources["AutoPET"].context == "autopet_pet_ct"
    assert read(raw / "Dataset501_All", "dataset.json")["channel_names"] == {"0": "CT", "1": "PET"}


def test_images_of_different_directions_are_read_one_way(write_raw: WriteRaw, raw: Path) -> None:
    write_raw("Dataset001_A", {f"a{i}": 1 for i in range(5)})
    write_raw("Dataset002_B", {f"b{i}": 1 for i in range(5)}, direction=LEFT_HANDED)
    assert compose("1", "2") == 0
    content = read(raw / "Dataset501_All", "dataset.json")
    assert content["overwrite_image_reader_writer"] == "SimpleITKIOWithReorient"


@pytest.mark.usefixtures("sources")
def test_a_failed_overwrite_leaves_the_earlier_dataset(
    raw: Path, write_raw: WriteRaw, capsys: pytest.CaptureFixture[str]
) -> None:
    compose("1", "2")
    write_raw("Dataset001_A", {"a2": 7})
    assert "value 7" in fail(capsys, raw, "1", "2", "--overwrite")
    assert read(raw / "Dataset501_All", "dataset.json")["numTraining"] == 10


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 1)])
@pytest.mark.usefixtures("sources")
def test_an_interruption_leaves_nothing_behind(
    error: BaseException, code: int, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise error

    monkeypatch.setattr(compose_write, "write_case_table", interrupt)
    assert compose("1", "2") == code
    assert sorted(path.name for path in raw.iterdir()) == ["Dataset001_A", "Dataset002_B"]


@pytest.mark.usefixtures("sources")
def test_a_dataset_that_another_process_composes_is_left_alone(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hold(raw, "composing Dataset501_All in", "Wait.", "Dataset501_All"):
        assert re.search(r"Another process is composing Dataset501_All", fail(capsys, raw, "1", "2"))


@pytest.fixture
def read_labels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the label maps that are read, in order; cases are worth keeping from the first on."""
    read, rewrite = [], compose_labels._rewrite
    monkeypatch.setattr(
        compose_labels, "_rewrite", lambda job, file: read.append(Path(file).name) or rewrite(job, file)
    )
    monkeypatch.setattr(journal, "_WORTH_KEEPING", 1)
    return read


def interrupt_after(cases: int, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose, and interrupt it when some label maps have been read."""

    def process(job: compose_labels.LabelJob) -> compose_labels.LabelSummary:
        if len(read) == cases:
            raise KeyboardInterrupt
        return compose_labels.process_case(job)

    with monkeypatch.context() as patch:
        patch.setattr(processing, "process_case", process)
        assert compose("1", "2") == 130


@pytest.mark.usefixtures("sources")
def test_interrupted_composing_goes_on_and_reads_no_label_again(
    raw: Path, read_labels: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interrupt_after(7, read_labels, monkeypatch)
    assert not (raw / "Dataset501_All").exists()
    before = list(read_labels)
    assert compose("1", "2") == 0
    assert len(before) == 7
    assert sorted(read_labels) == sorted(set(read_labels))
    assert sorted(path.name for path in raw.iterdir()) == ["Dataset001_A", "Dataset002_B", "Dataset501_All"]
    composed = {path.relative_to(raw): path for path in (raw / "Dataset501_All").rglob("*")}
    (raw / "Dataset501_All").rename(tmp_path / "resumed")
    assert compose("1", "2") == 0
    assert {path.relative_to(raw) for path in (raw / "Dataset501_All").rglob("*")} == composed.keys()
    for part in ("dataset.json", "duplus_cases.json", "splits_final.json", "labelsTr/B_b1.nii.gz"):
        assert (raw / "Dataset501_All" / part).read_bytes() == (tmp_path / "resumed" / part).read_bytes()


@pytest.mark.usefixtures("sources")
def test_a_case_that_changed_or_was_half_written_is_composed_again(
    raw: Path, read_labels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(7, read_labels, monkeypatch)
    new, changed = raw / ".Dataset501_All.writing", raw / "Dataset001_A" / "labelsTr" / "a0.nii.gz"
    os.utime(changed, ns=(1, 1))
    (new / "labelsTr" / "A_a1.nii.gz").unlink()
    (new / "labelsTr" / "B_b9.nii.gz").write_bytes(b"cut off")
    with (new / journal.FILE_NAME).open("a") as file:
        file.write('{"case": "A_a2", "checks')
    before = list(read_labels)
    assert compose("1", "2") == 0
    assert {"a0.nii.gz", "a1.nii.gz"} == set(before) & set(read_labels[len(before) :])
    assert len(list((raw / "Dataset501_All" / "labelsTr").iterdir())) == 10
    assert all(path.is_symlink() for path in (raw / "Dataset501_All" / "imagesTr").iterdir())
    assert not (raw / "Dataset501_All" / journal.FILE_NAME).exists()


@pytest.mark.usefixtures("sources")
def test_nothing_of_other_sources_is_left_of_an_interrupted_composition(
    raw: Path, read_labels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(7, read_labels, monkeypatch)
    new = raw / ".Dataset501_All.writing"
    assert (new / "imagesTs").is_dir()
    (new / "prompts.before.yaml").write_text("old")
    assert compose("1") == 0
    names = {path.name for path in (raw / "Dataset501_All").iterdir()}
    assert not names & {"imagesTs", "labelsTs", "prompts.before.yaml"}
    assert all(path.name.startswith("A_") for path in (raw / "Dataset501_All" / "labelsTr").iterdir())


def test_where_there_are_no_links_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(1, "not permitted")

    (tmp_path / "a").write_text("content")
    monkeypatch.setattr(compose_labels.os, "symlink", refuse)
    link_file(str(tmp_path / "a"), str(tmp_path / "b"))
    assert not (tmp_path / "b").is_symlink()
    assert (tmp_path / "b").read_text() == "content"


def test_worker_processes_do_the_same(
    write_raw: WriteRaw, raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw("Dataset001_A", {f"a{i}": i % 3 for i in range(16)}, labels={"background": 0, "x": 2, "y": 1})
    monkeypatch.setenv("nnUNet_def_n_proc", "2")
    assert compose("1") == 0
    first = read_case_table(raw / "Dataset501_All")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    assert compose("1", "--overwrite") == 0
    assert read_case_table(raw / "Dataset501_All") == first
    monkeypatch.setenv("nnUNet_def_n_proc", "many")
    assert "nnUNet_def_n_proc is 'many'" in fail(capsys, raw, "1", "--dry-run", "--overwrite")


def test_an_error_in_a_worker_process_leaves_nothing_behind(
    write_raw: WriteRaw, raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw("Dataset001_A", {f"a{i}": 7 if i == 12 else 1 for i in range(16)})
    monkeypatch.setenv("nnUNet_def_n_proc", "2")
    assert "Case 'a12' of Dataset001_A" in fail(capsys, raw, "1")
