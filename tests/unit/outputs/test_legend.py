"""Names of labels, beside label maps and inside them."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import nibabel
import numpy as np
import pytest
import SimpleITK
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from duplus_nnunet.outputs.legend import embed_label_names, write_legend
from duplus_nnunet.reporting.colours import COLOURS

from .outputs_answers import PROPERTIES, SHAPE, save_oriented

NAMES = {1: "left kidney", 2: 'tumour "T2" & <node>', 12: "Größe\nder Drüse"}
LABELS = np.random.default_rng(0).choice([0, 1, 2, 12], size=SHAPE).astype(np.uint8)


def write_labels(file: Path) -> Path:
    SimpleITKIO().write_seg(LABELS, str(file), PROPERTIES)
    return file


def read_table(file: Path) -> dict[int, str]:
    """Read a NIfTI's label table the way Connectome Workbench's files are read."""
    (extension,) = [entry for entry in nibabel.load(file).header.extensions if entry.get_code() == 30]
    root = ElementTree.fromstring(extension.text.rstrip("\0"))  # noqa: S314 (our own file)
    return {int(label.attrib["Key"]): label.text or "" for label in root.iter("Label")}


def test_legend_holds_names_and_colours(tmp_path: Path) -> None:
    content = json.loads(write_legend(tmp_path, NAMES)[0].read_text(encoding="utf-8"))
    assert content["labels"] == {
        "1": {"name": "left kidney", "colour": COLOURS[0]},
        "2": {"name": 'tumour "T2" & <node>', "colour": COLOURS[1]},
        "12": {"name": "Größe\nder Drüse", "colour": COLOURS[4]},
    }


def test_colour_table_has_six_words_a_line_as_slicer_reads_them(tmp_path: Path) -> None:
    lines = write_legend(tmp_path, NAMES)[1].read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Color table file"
    assert [line.split() for line in lines[1:3]] == [
        ["0", "background", "0", "0", "0", "0"],
        ["1", "left_kidney", "230", "159", "0", "255"],
    ]
    assert all(len(line.split()) == 6 for line in lines[1:])


def test_label_description_has_the_columns_that_itk_snap_reads(tmp_path: Path) -> None:
    lines = write_legend(tmp_path, NAMES)[2].read_text(encoding="utf-8").splitlines()[1:]
    form = re.compile(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+([01])\s+([01])\s+"([^"]*)"')
    matches = [form.fullmatch(line) for line in lines]
    assert [(match[1], match[8]) for match in matches if match] == [
        ("0", "background"),
        ("1", "left kidney"),
        ("2", "tumour 'T2' & <node>"),
        ("12", "Größe der Drüse"),
    ]


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_names_come_back_out_of_a_nifti(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{ending}"
    NibabelIO().write_seg(LABELS, str(file), {"nibabel_stuff": {"original_affine": np.diag([0.7, 0.8, 2.5, 1])}})
    assert embed_label_names(file, NAMES)
    assert read_table(file) == {1: "left kidney", 2: 'tumour "T2" & <node>', 12: "Größe der Drüse"}


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd"])
def test_voxels_and_grid_stay_as_they_were_for_simpleitk_and_nnunet(name: str, tmp_path: Path) -> None:
    file = write_labels(tmp_path / name)
    before = SimpleITK.ReadImage(str(file))
    assert embed_label_names(file, NAMES)
    after = SimpleITK.ReadImage(str(file))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(after), LABELS)
    for method in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection", "GetPixelIDValue"):
        assert getattr(after, method)() == getattr(before, method)()
    labels, properties = SimpleITKIO().read_seg(str(file))
    np.testing.assert_array_equal(labels[0], LABELS)
    assert properties["sitk_stuff"]["spacing"] == before.GetSpacing()


@pytest.mark.parametrize("orientation", ["RAS", "LPI"])
def test_header_of_a_nifti_stays_as_it_was_for_nibabel(orientation: str, tmp_path: Path) -> None:
    file = save_oriented(tmp_path / "a.nii.gz", LABELS, orientation, (0.7, 0.8, 2.5))
    before = nibabel.load(file)
    voxels = np.asarray(before.dataobj)
    embed_label_names(file, NAMES)
    after = nibabel.load(file)
    np.testing.assert_array_equal(np.asarray(after.dataobj), voxels)
    np.testing.assert_array_equal(after.affine, before.affine)
    differing = [key for key in before.header if before.header[key].tobytes() != after.header[key].tobytes()]
    assert differing in ([], ["vox_offset"])


def test_names_written_again_replace_the_first_ones(tmp_path: Path) -> None:
    file = write_labels(tmp_path / "a.nii.gz")
    embed_label_names(file, {1: "liver"})
    embed_label_names(file, NAMES)
    assert sorted(read_table(file)) == [1, 2, 12]


def test_other_extensions_of_a_nifti_are_kept(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(LABELS, np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"scanned by hand"))
    nibabel.save(image, tmp_path / "a.nii.gz")
    embed_label_names(tmp_path / "a.nii.gz", NAMES)
    assert [extension.get_code() for extension in nibabel.load(tmp_path / "a.nii.gz").header.extensions] == [6, 30]


def test_segments_of_an_nrrd_are_named_as_slicer_reads_them(tmp_path: Path) -> None:
    file = write_labels(tmp_path / "a.nrrd")
    embed_label_names(file, NAMES)
    header = file.read_bytes().split(b"\n\n")[0].decode()
    fields = dict(line.split(":=", 1) for line in header.splitlines() if ":=" in line)
    assert (fields["Segment0_Name"], fields["Segment0_LabelValue"]) == ("left kidney", "1")
    assert (fields["Segment2_Name"], fields["Segment2_LabelValue"]) == ("Größe der Drüse", "12")
    assert fields["Segment0_Color"] == "0.901961 0.623529 0.000000"
    assert fields["Segment0_Extent"] == "0 7 0 6 0 5"
    assert fields["Segment0_Layer"] == "0"


def test_format_that_cannot_store_names_is_unchanged(tmp_path: Path) -> None:
    file = write_labels(tmp_path / "a.mha")
    before = file.read_bytes()
    assert not embed_label_names(file, NAMES)
    assert file.read_bytes() == before


def test_writing_that_fails_leaves_the_label_map_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, _: bytes) -> None:
        self.write_text("half", encoding="utf-8")
        raise OSError("disk full")

    file = write_labels(tmp_path / "a.nii.gz")
    before = file.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        embed_label_names(file, NAMES)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_target_not_seen_in_training_is_marked_in_all_three_legends(tmp_path: Path) -> None:
    written = [file.read_text(encoding="utf-8") for file in write_legend(tmp_path, {1: "liver", 2: "ureter"}, {2})]
    assert json.loads(written[0])["labels"]["2"]["seen_in_training"] is False
    for text in written[1:]:
        lines = [line for line in text.splitlines() if "not" in line and "seen" in line]
        assert len(lines) == 1
        assert "ureter" in lines[0]
