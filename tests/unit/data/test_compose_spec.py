"""The specification of a composed dataset, and the errors in it."""

from pathlib import Path

import pytest

from duplus_nnunet.data.composing.spec import Spec, read_spec
from duplus_nnunet.errors import DataError


def read(folder: Path, text: str) -> Spec:
    file = folder / "compose.yaml"
    file.write_text(text, encoding="utf-8")
    return read_spec(file)


def test_without_a_file_all_is_by_default() -> None:
    assert read_spec(None) == Spec()


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_is_by_default(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == Spec()


def test_all_keys_are_read(tmp_path: Path) -> None:
    spec = read(
        tmp_path,
        """\
names: {60: Sarcoma}
targets: {SarcomaCT: {tumor: sarcoma}}
skip: {50: [Larynx]}
contexts: {4: hippocampus_mr, 219: {_ct_: amos_ct, _mr_: amos_mr}}
split_channels: [HECKTOR]
regions: {60: [lower leg, thigh]}
patients: {patterns: {50: 'pt_([0-9]+)', 60: '(?P<patient>STS_[0-9]+)(_x)?'}, shared: [[60, 61]]}
spacing: shared
folds: 3
seed: 0
""",
    )
    assert spec.contexts[219] == {"_ct_": "amos_ct", "_mr_": "amos_mr"}
    assert (spec.folds, spec.seed, spec.spacing) == (3, 0, "shared")
    assert spec.patients.shared == [[60, 61]]
    assert spec.regions == {60: ["lower leg", "thigh"]}


def test_a_number_with_leading_zeros_is_not_octal(tmp_path: Path) -> None:
    spec = read(tmp_path, "patients: {shared: [[060, 061]]}\nskip: {050: [Larynx]}\n")
    assert spec.patients.shared == [["060", "061"]]
    assert list(spec.skip) == ["050"]


def test_a_split_of_the_user_is_named(tmp_path: Path) -> None:
    assert read(tmp_path, "splits: mine.json\n").splits == "mine.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spacings: shared", r"compose.yaml:1: .*'spacings'.*: spacing,"),
        ("folds: 5\npatients: {pattern: {}}", r"compose.yaml:2: .*'pattern'.*: patterns, shared"),
        ("spacing: mine", r"compose.yaml:1: spacing: .*'context' or 'shared'; found 'mine'"),
        ("folds: 1", r"folds: .*greater than or equal to 2; found 1"),
        ("folds: five", r"folds: .*integer; found 'five'"),
        ("seed: 3\nsplits: a.json", r"compose.yaml:2: `splits` .*`folds`.*`seed`"),
        ("names: {60: 'a b'}", r"names -> 60: .*found 'a b'"),
        ("patients: {patterns: {60: 'STS'}}", r"patients -> patterns -> 60: 'STS' .*0 groups"),
        ("patients: {patterns: {60: '('}}", r"patients -> patterns -> 60: '\(' .*regular expression"),
        ("regions: {60: [leggs]}", r"compose.yaml:1: regions -> 60.*'leggs'.*'leg'"),
        ("contexts: {60: 5}", r"contexts -> 60: .*found 5"),
        ("skip: {60: Larynx}", r"skip -> 60: .*list; found 'Larynx'"),
        ("- 4", r"compose.yaml:1: .*mapping .*names, targets"),
        ("a: [", r"compose.yaml:\d: .*YAML"),
        ("folds: 3\nfolds: 4", r"compose.yaml:2: .*'folds' .*line 1"),
    ],
)
def test_a_mistake_is_reported_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "fold: 3\nspace: shared\nseed: x\n")
    assert len(str(caught.value).splitlines()) == 3


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.yaml:1: "):
        read_spec(tmp_path / "none.yaml")
