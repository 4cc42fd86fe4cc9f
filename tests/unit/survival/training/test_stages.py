"""What the survival trainer is made of: features that are kept, who was trained on, a LoRA that learns."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.networks import ConditionedUNet, Prompts, condition
from duplus_nnunet.networks.adaptation import name_in_base
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.imaging.feature_store import FeatureStore, ImagedCase, collect
from duplus_nnunet.survival.imaging.image_features import LESION, name_features
from duplus_nnunet.survival.models.hazard import logistic_hazard_loss, predict_survival
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record
from duplus_nnunet.survival.training.base import judge_overlap
from duplus_nnunet.survival.training.checkpoint import compare_patients, digest_outcomes
from duplus_nnunet.survival.training.data import (
    ClinicalData,
    FoldPatients,
    InnerSplit,
    part_images,
    read_clinical_data,
    split_patients,
    split_within,
)
from duplus_nnunet.survival.training.lora import (
    ADAPTER,
    HazardHead,
    HazardTargets,
    attach_lora,
    is_gain,
    make_spec,
    measure_curves,
)
from duplus_nnunet.trainers.survival import DuPLUSSurvivalTrainer
from duplus_nnunet.trainers.training_cases import (
    TrainingCases,
    continue_from,
    find_overlap,
    parse_base,
    read_training_cases,
    write_training_cases,
)

# --- features that are kept


class Dataset:
    """nnU-Net's, of cases whose one voxel holds the number in their name."""

    def __init__(self, folder: Path) -> None:
        self.source_folder = str(folder)

    def load_case(self, case: str) -> tuple[Any, ...]:
        return (np.full((1, 1, 1, 1), float(case[1:]), np.float32),)


class Reader:
    """Reads one number, and fails where it is asked to."""

    features = 1

    def __init__(self, bad: str = "") -> None:
        self.bad, self.read_cases = bad, list[float]()
        self.bank = SimpleNamespace(contexts={"ct": {}, "pet": {}})
        self.lesions: dict[str, tuple[str, ...]] = {"ct": (), "pet": ()}
        self.host = SimpleNamespace(dataset_json={"channel_names": {"0": "CT"}})

    def read(self, image: torch.Tensor, context: str) -> Any:
        value = float(image.mean())
        self.read_cases.append(value)
        if self.bad and value == float(self.bad[1:]):
            raise RuntimeError("cut off\nat byte 7")
        return np.array([value], np.float32)


IMAGES = [
    ImagedCase("c1", "ann", "ct"),
    ImagedCase("c2", "bob", "ct"),
    ImagedCase("c3", "bob", "ct"),
    ImagedCase("c4", "bob", "pet"),
]


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    folder = tmp_path / "cases"
    folder.mkdir()
    for image in IMAGES:
        (folder / f"{image.case}.b2nd").write_bytes(b"x")
    return folder


def gather(folder: Path, reader: Reader, key: str = "k") -> tuple[FeatureTable, list[str]]:
    store = FeatureStore.open(folder.parent / "features.npz", key)
    return collect(store, reader, Dataset(folder), IMAGES, lambda line: None)  # type: ignore[arg-type]


def test_a_patient_has_a_block_a_context_and_repeated_images_are_averaged(cases: Path) -> None:
    table, notes = gather(cases, Reader())
    assert table.contexts == ("ct", "pet")
    np.testing.assert_array_equal(table.take(["ann", "bob"]), [[1, np.nan], [2.5, 4]])
    assert notes == []


def test_what_was_read_is_not_read_again(cases: Path) -> None:
    first, _ = gather(cases, Reader())
    again = Reader()
    second, _ = gather(cases, again)
    assert again.read_cases == []
    np.testing.assert_array_equal(first.take(["ann", "bob"]), second.take(["ann", "bob"]))


def test_a_changed_case_and_other_weights_are_read_again(cases: Path) -> None:
    gather(cases, Reader())
    (cases / "c2.b2nd").write_bytes(b"longer")
    changed = Reader()
    gather(cases, changed)
    assert changed.read_cases == [2.0]
    other = Reader()
    gather(cases, other, "other weights")
    assert other.read_cases == [1.0, 2.0, 3.0, 4.0]


def test_one_bad_case_counts_as_not_imaged_and_is_tried_again(cases: Path) -> None:
    table, notes = gather(cases, Reader(bad="c1"))
    assert "ann" not in table.rows
    assert notes == ["Case 'c1' could not be read (cut off); it counts as not imaged."]
    mended = Reader()
    table, notes = gather(cases, mended)
    assert (mended.read_cases, notes) == ([1.0], [])
    assert table.rows["ann"][0] == 1


def test_without_a_single_case_there_is_nothing_to_learn_from(cases: Path) -> None:
    store, reader = FeatureStore.open(cases.parent / "none.npz", "k"), Reader(bad="c1")
    with pytest.raises(DataError, match="none could be read"):
        collect(store, reader, Dataset(cases), IMAGES[:1], lambda line: None)  # type: ignore[arg-type]


def test_a_case_whose_file_is_not_there_is_said(cases: Path) -> None:
    (cases / "c1.b2nd").unlink()
    table, notes = gather(cases, Reader())
    assert "ann" not in table.rows
    assert notes == [
        "Case 'c1' could not be read (its preprocessed file is not there; preprocess the dataset again); it counts as "
        "not imaged."
    ]


def test_a_store_with_a_changed_byte_counts_as_empty(cases: Path) -> None:
    gather(cases, Reader())
    file = cases.parent / "features.npz"
    for place in range(file.stat().st_size):  # headers, compressed data and the directory
        content = bytearray(file.read_bytes())
        content[place] ^= 0xFF
        changed = file.with_name("changed.npz")
        changed.write_bytes(bytes(content))
        assert len(FeatureStore.open(changed, "k").rows) in (0, 4)


def test_features_bear_the_key_of_what_gave_them(cases: Path) -> None:
    table, _ = gather(cases, Reader(), "these weights")
    table.to_npz(cases.parent / "table.npz")
    assert FeatureTable.from_npz(cases.parent / "table.npz").key == "these weights"
    assert table.select(("measure",)).key == "these weights"


def test_a_damaged_store_counts_as_empty(cases: Path) -> None:
    (cases.parent / "features.npz").write_bytes(b"no numbers")
    reader = Reader()
    gather(cases, reader)
    assert len(reader.read_cases) == 4


def test_measures_have_their_agreed_names() -> None:
    names = [name for name, kind in name_features("ct", 1, 2, True) if kind == "measure"]
    assert names == [f"ct: lesion {name}" for name in
                     ("volume", "mean", "mean of channel 2", "max", "max of channel 2", "found")]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["kidney tumour", "Tumor", "soft tissue sarcoma", "liver metastases", "GTVp", "glioma"]
)
def test_lesions_are_known_by_name(name: str) -> None:
    assert LESION.search(name)


@pytest.mark.parametrize("name", ["liver", "oedema", "left kidney", "aorta"])
def test_organs_are_no_lesions(name: str) -> None:
    assert not LESION.search(name)


# --- who was trained on

BASE = TrainingCases("Dataset001_A", "0", ("a1", "a2"), ("g/ann", "g/bob"))
HELD = {"ann": ["c1", "g/ann"], "eve": ["c9", "g/eve"]}


def test_training_cases_come_back_as_they_were_written(tmp_path: Path) -> None:
    child = TrainingCases("Dataset002_B", "1", ("b1",), ("cid",), BASE)
    write_training_cases(tmp_path, child)
    assert read_training_cases(tmp_path) == child
    assert [one.dataset for one in child.lineage] == ["Dataset002_B", "Dataset001_A"]
    assert parse_base("unknown") == "unknown"
    assert read_training_cases(tmp_path / "elsewhere") == "unknown"


def test_a_damaged_file_is_not_taken_for_unknown(tmp_path: Path) -> None:
    (tmp_path / "training_cases.json").write_text('{"version": 1, "cases": 3}')
    with pytest.raises(DataError, match="cannot be read"):
        read_training_cases(tmp_path)


def test_a_training_that_goes_on_on_other_splits_has_seen_both() -> None:
    now = TrainingCases("Dataset001_A", "0", ("a3",), ("g/cid",))
    assert continue_from(BASE, now).cases == ("a1", "a2", "a3")
    assert not continue_from("unknown", now).is_known


def test_overlap_is_found_through_any_name_and_any_ancestor() -> None:
    assert find_overlap(BASE, HELD) == ["ann"]
    assert find_overlap(TrainingCases("B", "0", ("b1",), ("b1",), BASE), HELD) == ["ann"]
    assert find_overlap(TrainingCases("B", "0", ("c9",), ()), HELD) == ["eve"]
    assert find_overlap(TrainingCases("B", "0", ("c7",), ("zoe",)), HELD) == []


def test_overlap_is_refused_unless_allowed_and_then_said() -> None:
    with pytest.raises(DataError, match=r"trained on 1 of 2 held-out patients \(ann\)"):
        judge_overlap(BASE, HELD, allowed=False)
    assert "ann" in judge_overlap(BASE, HELD, allowed=True)[0]


@pytest.mark.parametrize("base", ["unknown", None, TrainingCases("B", "0", ("c7",), ("zoe",), "unknown")])
def test_what_nobody_knows_is_refused_too(base: Any) -> None:
    with pytest.raises(DataError, match="not known on whom"):
        judge_overlap(base, HELD, allowed=False)


def test_a_base_of_other_patients_will_do() -> None:
    assert judge_overlap(TrainingCases("B", "0", ("c7",), ("zoe",)), HELD, allowed=False) == []


def test_a_patient_is_known_again_in_another_datasets_cases() -> None:
    clinic = make_clinic("ann_ct", "bob_ct")
    base, held = TrainingCases("Dataset002_B", "0", ("ann_pet",), ("ann_pet",)), {"ann": ["ann_ct"]}
    assert find_overlap(base, held) == []
    with pytest.raises(DataError, match=r"trained on 1 of 1 held-out patients \(ann\), as cases of Dataset002_B are"):
        judge_overlap(base, held, False, clinic, "Dataset001_A")
    assert judge_overlap(base, {"bob": ["bob_ct"]}, False, clinic, "Dataset001_A") == []


def test_cases_that_name_nobody_here_are_said_not_to_be_compared() -> None:
    clinic, base = make_clinic("ann_ct"), TrainingCases("Dataset002_B", "0", ("scan7", "zoe_ct"), ("scan7", "zoe"))
    (note,) = judge_overlap(base, {"ann": ["ann_ct"]}, False, clinic, "Dataset001_A")
    assert "trained on Dataset002_B, 2 of whose 2 cases bear no name of a patient here" in note
    assert judge_overlap(base, {"ann": ["ann_ct"]}, False, clinic, "Dataset002_B") == []
    some = TrainingCases("Dataset002_B", "0", ("scan7", "bob_pet"), ("scan7", "bob"), TrainingCases("C", "0", (), ()))
    (note,) = judge_overlap(some, {"ann": ["ann_ct"]}, False, make_clinic("ann_ct", "bob_ct"), "Dataset001_A")
    assert "1 of whose 2 cases bear no name" in note


# --- whose prognosis

SCHEMA = ClinicalSchema.model_validate(
    {"patient": "p", "time": {"column": "t"}, "event": {"column": "e", "seen": [1], "censored": [0]},
     "cases": "^([^_]+)_"}
)  # fmt: skip


def make_record(name: str, time: float = 10.0, event: str = SEEN) -> Record:
    return Record(1, name, "", time, event)


def make_clinic(*cases: str) -> ClinicalData:
    table = CaseTable({"s": Source("D", "ct", ("t",), ("CT",))}, {case: Case("s", case, ("t",), ()) for case in cases})
    return ClinicalData({name: make_record(name) for name in ("ann", "bob", "cid", "dot")}, SCHEMA, table, ())


def test_who_has_no_image_is_learned_from_and_a_case_without_record_is_left_out() -> None:
    clinic = make_clinic("ann_ct", "bob_ct", "zoe_ct")
    found = split_patients(clinic, ["ann_ct", "zoe_ct"], ["bob_ct"], 0)
    assert [record.patient for record in found.train] == ["ann", "cid", "dot"]
    assert [record.patient for record in found.held_out] == ["bob"]
    assert clinic.list_images(["zoe_ct", "ann_ct"]) == [ImagedCase("ann_ct", "ann", "ct")]


def test_a_patient_on_both_sides_is_refused() -> None:
    with pytest.raises(DataError, match="holds out some images of patient 'ann'"):
        split_patients(make_clinic("ann_ct", "ann_mr"), ["ann_ct"], ["ann_mr"], 0)


def test_the_fold_all_holds_nobody_out() -> None:
    found = split_patients(make_clinic("ann_ct"), ["ann_ct"], ["ann_ct"], "all")
    assert len(found.train) == 4
    assert found.held_out == ()


def test_the_inner_split_holds_imaged_patients_out_alone() -> None:
    records = [make_record(f"p{n:02d}", event=SEEN if n % 2 else CENSORED) for n in range(20)]
    found = split_within(records, {f"p{n:02d}" for n in range(12)}, 0)
    assert found is not None
    assert {record.patient for record in found.held_out} <= {f"p{n:02d}" for n in range(12)}
    assert len(found.train) + len(found.held_out) == 20
    assert split_within(records, {"p01", "p02", "p03"}, 0) is None


def test_the_second_stage_is_given_no_case_that_cannot_be_read_and_none_of_a_patient_who_judges() -> None:
    inner = InnerSplit((make_record("ann"), make_record("cid")), (make_record("bob"),))
    images = [ImagedCase("ann_ct", "ann", "ct"), ImagedCase("bob_ct", "bob", "ct"), ImagedCase("cid_ct", "cid", "ct")]
    assert part_images(images, inner) == (["ann_ct", "cid_ct"], ["bob_ct"])
    with pytest.raises(DataError, match="2 images of inner training patients and 0 of inner held-out ones"):
        part_images([images[0], images[2]], inner)


def test_the_trainer_loads_no_case_that_was_not_read() -> None:
    trainer: Any = SimpleNamespace(
        do_split=lambda: (["ann_ct", "bob_ct", "cid_ct"], ["dot_ct"]),
        clinic=make_clinic("ann_ct", "bob_ct", "cid_ct", "dot_ct"), unread=["cid_ct"],
        inner=InnerSplit((make_record("ann"), make_record("cid")), (make_record("bob"),)),
        dataset_class=lambda folder, cases: cases, preprocessed_dataset_folder="",
    )  # fmt: skip
    assert DuPLUSSurvivalTrainer.get_tr_and_val_datasets(trainer) == (["ann_ct"], ["bob_ct"])


def make_state(trainer: Any) -> dict[str, Any]:
    return {
        "patients": [record.patient for record in trainer.cohort.train], "model": None,
        "outcomes": digest_outcomes(trainer.cohort.train),
        "inner_held_out": [record.patient for record in trainer.inner.held_out],
    }  # fmt: skip


def make_trainer(*records: Record, held: int = 1) -> Any:
    inner = InnerSplit(records[held:], records[:held])
    return SimpleNamespace(cohort=FoldPatients(records, ()), inner=inner, notes=[])


def test_a_second_stage_goes_on_only_with_the_outcomes_that_it_was_begun_with() -> None:
    ann, bob = make_record("ann"), make_record("bob")
    state = make_state(make_trainer(ann, bob))
    compare_patients(make_trainer(ann, bob), state, "checkpoint")
    changed = make_trainer(ann, make_record("bob", event=CENSORED))
    compare_patients(changed, {**state, "model": {}}, "a finished one")
    for other in (changed, make_trainer(bob, ann)):
        with pytest.raises(ModelError, match="it would be judged by patients that it learned from"):
            compare_patients(other, state, "checkpoint")


def test_a_second_stage_of_an_earlier_version_goes_on_and_says_what_was_not_checked() -> None:
    trainer = make_trainer(make_record("ann"), make_record("bob"))
    compare_patients(trainer, {"patients": ["ann", "bob"], "model": None}, "one of before")
    (note,) = trainer.notes
    assert "did not write down the outcomes" in note


def test_a_clinical_table_without_a_schema_names_the_command_that_drafts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Dataset001_A"
    folder.mkdir()
    (folder / "dataset.json").write_text('{"channel_names": {"0": "CT"}, "labels": {"background": 0}}')
    (folder / "clinical.csv").write_text("id,days,dead\nann,10,1\n")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    with pytest.raises(DataError, match=r"clinical\.yaml.* is not there\. Draft it by `duplus survival draft D"):
        read_clinical_data("Dataset001_A", make_clinic("ann_ct").table)


# --- the LoRA


def make_network() -> ConditionedUNet:
    torch.manual_seed(0)
    unet = PlainConvUNet(
        input_channels=1, n_stages=3, features_per_stage=[8, 8, 8], conv_op=nn.Conv3d, kernel_sizes=3,
        strides=[1, 2, 2], n_conv_per_stage=1, num_classes=1, n_conv_per_stage_decoder=1, conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip
    network = condition(unet, (8, 8))
    nn.init.normal_(network.film.out.weight, std=0.1)  # type: ignore[arg-type]
    network.bind(Prompts(torch.randn(1, 8), torch.randn(1, 8)))
    return network


SETTINGS = SurvivalSettings(lora_r=4)


def test_the_encoder_alone_gives_the_bottleneck_that_the_network_has() -> None:
    network, image = make_network(), torch.randn(1, 1, 16, 16, 16)
    seen = list[torch.Tensor]()
    network.encoder.register_forward_hook(lambda *call: seen.append(call[2][-1]))
    network(image)
    assert torch.equal(network.encode(image), seen[0])
    other = network.encode(image, Prompts(torch.randn(1, 8), torch.randn(1, 8)))
    assert not torch.equal(other, seen[0])  # T1 steers it


def test_gradient_reaches_every_layer_of_the_lora_and_nothing_of_the_base() -> None:
    network = make_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    image = torch.randn(4, 1, 16, 16, 16)
    answer = network(image)
    weights = attach_lora(network, make_spec(network, SETTINGS))
    head = HazardHead(8, 1, 3)
    records = [make_record(str(n), 1.0 + n, SEEN if n < 3 else CENSORED) for n in range(4)]
    targets = HazardTargets.of(records, records, 3)
    optimizer = torch.optim.AdamW([*weights, *head.parameters()], 1e-2)
    network.train()
    for _ in range(2):  # the second factor starts at 0, and so passes no gradient on to the first one at first
        optimizer.zero_grad()
        network.default_adapter = ADAPTER
        pooled = network.encode(image).mean((2, 3, 4))
        network.default_adapter = ""
        targets.measure(head(pooled, torch.zeros(4, dtype=torch.int64)), list("0123")).backward()
        optimizer.step()
    assert weights
    assert all(weight.grad is not None and bool(weight.grad.abs().max() > 0) for weight in weights)
    own = {id(weight) for weight in weights}
    assert all(value.grad is None for value in network.parameters() if id(value) not in own)
    after = {name_in_base(name): value for name, value in network.state_dict().items() if name_in_base(name)}
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    with torch.no_grad():
        assert torch.equal(network(image)[0], answer[0])


def test_the_loss_of_curves_is_the_networks_own_loss() -> None:
    records = [make_record(str(n), 1.0 + n, SEEN if n % 2 else CENSORED) for n in range(8)]
    targets = HazardTargets.of(records, records, 4)
    logits = torch.randn(8, len(targets.edges))
    curves = predict_survival(logits, targets.edges, targets.edges)
    expected = float(logistic_hazard_loss(logits, targets.risk, targets.had))
    assert measure_curves(curves, targets, list("01234567")).mean() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("after", "gained"), [([0.8, 1.7, 2.9], True), ([0.2, 2.3, 3.3], False), ([1.2, 2.1, 3.3], False)]
)
def test_a_lora_is_kept_if_it_gains_more_than_one_standard_error(after: list[float], gained: bool) -> None:
    assert is_gain(np.array([1.0, 2.0, 3.0]), np.array(after)) is gained


def test_one_patient_cannot_tell_a_gain() -> None:
    assert is_gain(np.array([1.0]), np.array([0.1])) is False


def test_features_are_standardised_by_the_context_of_training_patients_alone() -> None:
    rows = {"a": np.array([1.0, 10.0]), "b": np.array([3.0, np.nan]), "held": np.array([1e6, 1e6])}
    table = FeatureTable(("x", "y"), ("ct", "pet"), ("pooled", "pooled"),
                         {name: row.astype(np.float32) for name, row in rows.items()})  # fmt: skip
    head = HazardHead(1, 3, 2)
    head.start(table, ["ct", "pet", "mr"], ["a", "b"])
    assert head.mean[:, 0].tolist() == [2.0, 10.0, 0.0]
    assert head.scale[0, 0].item() == pytest.approx(1.0, rel=1e-4)


def test_a_modality_of_one_patient_is_not_blown_up() -> None:
    rows = {"a": np.array([5.0], np.float32), "b": np.array([np.nan], np.float32)}
    head = HazardHead(1, 1, 2)
    head.start(FeatureTable(("x",), ("ct",), ("pooled",), rows), ["ct"], ["a", "b"])
    assert (head.mean.item(), head.scale.item()) == (5.0, 1.0)
    rows = {patient: np.array([1000 + 1e-4 * place], np.float32) for place, patient in enumerate("ab")}  # as rounded
    head.start(FeatureTable(("x",), ("ct",), ("pooled",), rows), ["ct"], ["a", "b"])
    assert head.scale.item() == 1.0


def test_a_rank_that_no_layer_has_is_refused() -> None:
    with pytest.raises(ValueError, match="lora_r is 64"):
        make_spec(make_network(), SurvivalSettings(lora_r=64))


# --- trained folds in a study


def test_trained_models_foretell_whom_they_held_out_and_nobody_else() -> None:
    from duplus_nnunet.survival.training.folds import TrainedForecast

    task: Any = SimpleNamespace(seed=0, test=[make_record("ann")], times=np.array([1.0]))
    with pytest.raises(ModelError, match="no trained model held out"):
        TrainedForecast({})(task)
