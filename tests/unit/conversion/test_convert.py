"""Downloads that are incomplete, of another form or damaged are reported by name; what is written is whole."""

from pathlib import Path

import numpy as np
import pytest

from duplus_nnunet.cli import main
from duplus_nnunet.conversion.recipe import read_recipe
from duplus_nnunet.conversion.templates import check_template, fill, find_paths
from duplus_nnunet.errors import DataError

from .trees import make_image, make_labels, save, save_pair

PAIR = ("Training/img/img{}.nii.gz", "Training/label/label{}.nii.gz")


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    (tmp_path / "raw").mkdir()
    for number in ("0001", "0002"):
        save_pair(tmp_path / "download", PAIR[0].format(number), PAIR[1].format(number), range(14))
    return tmp_path / "download"


def convert(download: Path, *words: str, recipe: str = "btcv") -> int:
    return main(["convert", recipe, str(download), *words])


def list_written(download: Path) -> list[str]:
    return sorted(entry.name for entry in (download.parent / "raw").iterdir())


def test_datasets_are_listed_with_source_and_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "list"]) == 0
    shown = capsys.readouterr().out
    assert "kits19" in shown
    assert "CC BY-NC-SA 4.0" in shown


def test_a_check_writes_nothing(download: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(download, "--check") == 0
    assert "2 training" in capsys.readouterr().out
    assert list_written(download) == []


def test_half_a_download_is_refused_and_can_be_converted_in_part(
    download: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (download / PAIR[1].format("0002")).unlink()
    assert convert(download, "--check") == 1
    assert "img0002.nii.gz" in capsys.readouterr().out
    assert convert(download, "-d", "300") == 1
    assert list_written(download) == []
    assert convert(download, "-d", "300", "--available") == 0
    assert list_written(download) == ["Dataset300_BTCV"]


def test_a_tree_of_another_release_is_refused_with_what_was_found(
    tmp_path: Path, download: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other" / "averaged-images").mkdir(parents=True)
    assert convert(tmp_path / "other", "-d", "300") == 1
    assert "averaged-images" in capsys.readouterr().err


def test_an_unknown_label_value_leaves_the_case_out(download: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(download, PAIR[1].format("0002"), make_labels((0, 1, 99)))
    assert convert(download, "-d", "300") == 1
    assert "99" in capsys.readouterr().err
    folder = download.parent / "raw" / "Dataset300_BTCV"
    assert sorted(file.name for file in (folder / "imagesTr").iterdir()) == ["BTCV_0001_0000.nii.gz"]
    assert "BTCV_0002" in (folder / "conversion.json").read_text()


@pytest.mark.parametrize("kind", ["other size", "other place", "damaged"])
def test_a_case_that_cannot_be_used_is_left_out(download: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    file = download / PAIR[0].format("0002")
    if kind == "damaged":
        file.write_bytes(file.read_bytes()[:200])
    elif kind == "other size":
        save(download, PAIR[0].format("0002"), make_image(0, (10, 10, 9)))
    else:
        save(download, PAIR[0].format("0002"), make_image(), np.diag([-2.0, -2.0, 3.0, 1.0]))
    assert convert(download, "-d", "300") == 1
    assert "BTCV_0002" in capsys.readouterr().err


def test_a_complete_form_is_taken_before_an_incomplete_one(download: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(download, "RawData/Training/img/img0009.nii.gz", make_image())
    assert convert(download, "--check") == 0
    assert "2 training" in capsys.readouterr().out


def test_one_frame_of_a_file_of_four_dimensions_is_written_as_an_image(download: Path) -> None:
    import nibabel

    save(download, PAIR[0].format("0002"), make_image()[..., None])
    assert convert(download, "-d", "300") == 0
    written = download.parent / "raw" / "Dataset300_BTCV" / "imagesTr" / "BTCV_0002_0000.nii.gz"
    assert nibabel.load(written).shape == (10, 10, 10)


def test_no_usable_case_leaves_nothing_behind(download: Path) -> None:
    for number in ("0001", "0002"):
        save(download, PAIR[1].format(number), make_labels((0, 99)))
    assert convert(download, "-d", "300") == 1
    assert list_written(download) == []


def test_an_existing_dataset_is_not_replaced(download: Path) -> None:
    assert convert(download, "-d", "300") == 0
    assert convert(download, "-d", "300") == 1


def test_a_recipe_of_ones_own_is_a_file(download: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "title: Mine\nsource: here\nlicence: mine\nsize: small\ndataset: Mine\nchannels: [CT]\n"
        "labels: {liver: [6, 7], spleen: 1-5}\nlayouts:\n  - name: mine\n    groups:\n"
        '      - {case: "m_{id}", images: ["Training/img/img{id:d}.nii.gz"],'
        ' label: "Training/label/label{id}.nii.gz"}\n'
    )
    for number in ("0001", "0002"):
        save(download, PAIR[1].format(number), make_labels((0, 3, 6, 7)))
    assert convert(download, "-d", "301", recipe=str(file)) == 0
    import nibabel

    labels = np.asarray(nibabel.load(tmp_path / "raw/Dataset301_Mine/labelsTr/m_0001.nii.gz").dataobj)
    assert labels.ravel()[:4].tolist() == [0, 2, 1, 1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("labels: {a: 1}", "labels: {a: x}"),
        ("labels: {a: 1}", "labels: {a: 5-1}"),
        ("label: l", "label: /etc/l"),
        ("label: l", "label: ../l"),
        ("label: l", "label: 'l{'"),
        ("channels: [CT]", "channels: [CT, PET]"),
        ("steps: []", "steps: [{step: unknown}]"),
        ("title: T", "name: T"),
        ("steps: []", "clinical: {tables: [t.csv], meaning: {patient: p}}"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = (
        "title: T\nsource: s\nlicence: l\nsize: s\ndataset: D\nchannels: [CT]\nlabels: {a: 1}\nsteps: []\n"
        'layouts: [{name: n, groups: [{case: "{id}", images: ["i{id}"], label: l}]}]\n'
    )
    file = tmp_path / "right.yaml"
    file.write_text(text)
    assert read_recipe(file).title == "T"
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=r"wrong\.yaml"):
        read_recipe(wrong)


def test_an_unknown_dataset_lists_those_there_are(download: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(download, "-d", "300", recipe="btvc") == 1
    assert "'btcv'" in capsys.readouterr().err


def test_fields_are_found_and_filled(tmp_path: Path) -> None:
    for name in ("a/x_1.txt", "a/x_2b.txt", "b/x_3.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {path.name: fields for fields, path in find_paths(tmp_path, "{folder}/x_{id:d}.txt")}
    assert found == {"x_1.txt": {"folder": "a", "id": "1"}, "x_3.txt": {"folder": "b", "id": "3"}}
    assert [path.name for _, path in find_paths(tmp_path, "{folder}/x_{id}.txt", {"id": "2b"})] == ["x_2b.txt"]
    assert [path.name for _, path in find_paths(tmp_path, "*/x_3.txt")] == ["x_3.txt"]
    assert fill("{id}-{folder}", {"id": "1", "folder": "a"}) == "1-a"


@pytest.mark.parametrize("template", ["/a", "../a", "a//b", "a{b", "a{b:x}"])
def test_templates_that_lead_elsewhere_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"below the download|brace"):
        check_template(template)


def test_two_whole_downloads_in_one_folder_are_not_chosen_from(
    download: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_pair(download, "RawData/Training/img/img0009.nii.gz", "RawData/Training/label/label0009.nii.gz", range(14))
    assert convert(download, "-d", "300") == 1
    assert "two downloads" in capsys.readouterr().err
    assert list_written(download) == []
    # A part of the same download is no second one.
    assert convert(download.parent, "--check") == 1
    assert convert(download / "RawData", "--check") == 0


def test_half_of_one_folder_is_not_hidden_by_another_that_is_complete(
    tmp_path: Path, download: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for batch, number in ((1, 3), (2, 30), (2, 31)):
        folder = f"Training Batch {batch}"
        save_pair(tmp_path / "lits", f"{folder}/volume-{number}.nii", f"{folder}/segmentation-{number}.nii", (0, 1, 2))
    (tmp_path / "lits/Training Batch 2/segmentation-31.nii").unlink()
    assert convert(tmp_path / "lits", "--check", recipe="lits") == 1
    shown = capsys.readouterr().out
    assert "2 training" in shown
    assert "volume-31.nii" in shown


def test_copies_of_a_case_are_named(tmp_path: Path, download: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for batch in ("1", "2"):
        folder = f"Training Batch {batch}"
        save_pair(tmp_path / "lits", f"{folder}/volume-3.nii", f"{folder}/segmentation-3.nii", (0, 1, 2))
    assert convert(tmp_path / "lits", "-d", "300", recipe="lits") == 1
    assert "2 cases would be called 'LiTS_3'" in capsys.readouterr().out
    assert list_written(download) == []
    assert convert(tmp_path / "lits", "-d", "300", "--available", recipe="lits") == 1


def test_a_download_of_another_dataset_is_refused_with_what_was_expected(
    download: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(download, "-d", "300", recipe="kits23") == 1
    shown = capsys.readouterr().err
    assert "case_{id:d}/imaging.nii.gz" in shown
    assert "Training" in shown


def test_an_unreadable_label_map_leaves_its_case_out(download: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (download / PAIR[1].format("0002")).write_bytes(b"")
    assert convert(download, "-d", "300") == 1
    assert "label0002.nii.gz cannot be read" in capsys.readouterr().err
    table = (download.parent / "raw" / "Dataset300_BTCV" / "duplus_cases.json").read_text()
    assert "BTCV_0001" in table
    assert "BTCV_0002" not in table


def test_a_plain_file_in_place_of_the_folder_is_refused(download: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (download.parent / "archive.zip").write_bytes(b"PK")
    assert convert(download.parent / "archive.zip", "-d", "300") == 1
    assert "Unpack the download" in capsys.readouterr().err
