"""The shipped registry files have no problems, name their sources, and fit the datasets of nnU-Net's converters."""

import re
from typing import Any

import pytest

from duplus_nnunet.prompt_registry import entry_texts, find_entry
from duplus_nnunet.prompt_registry.finding import SHIPPED_FOLDER, shipped_files
from duplus_nnunet.prompt_registry.registry_file import RegistryFile, check_registry_file, file_entry
from duplus_nnunet.prompt_registry.store import SHIPPED_FOLDER as EMBEDDINGS
from duplus_nnunet.prompt_registry.store import Store, read_store

PATHS = sorted(SHIPPED_FOLDER.glob("*.yaml"))
FILES = {file.path.stem: file for file in shipped_files()}
PAPER = [
    "btcv",
    "lits",
    "kits",
    "amos_ct",
    "amos_mr",
    "structseg_thorax",
    "structseg_head_and_neck",
    "chaos",
    "mnms",
    "brain_structure",
    "autopet",
    "hecktor",
]
EVERY_FILE = pytest.mark.parametrize("file", FILES.values(), ids=FILES.keys())


@pytest.fixture(scope="module")
def store() -> Store:
    (path,) = EMBEDDINGS.glob("*.npz")
    return read_store(path)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_file_is_clean(path: Any) -> None:
    assert check_registry_file(path)[1] == ()


@EVERY_FILE
def test_a_file_names_its_source(file: RegistryFile) -> None:
    assert re.search(r"\d{4}", file.form.source)
    assert "http" in file.form.source or "doi" in file.form.source


@EVERY_FILE
def test_names_are_english_words(file: RegistryFile) -> None:
    for name in file.targets:
        assert re.fullmatch(r"[a-z][a-z-]*( [a-z][a-z-]*)*", name), name


@EVERY_FILE
def test_partners_return_each_other(file: RegistryFile) -> None:
    for target in file.targets.values():
        if target.partner is not None:
            assert file.targets[target.partner].partner == target.name


@EVERY_FILE
def test_all_texts_are_embedded(file: RegistryFile, store: Store) -> None:
    assert [text for text in entry_texts(file_entry(file)) if text not in store] == []


def test_every_dataset_of_the_paper_has_a_file() -> None:
    assert set(PAPER) <= set(FILES)


def test_the_papers_datasets_have_thirty_targets_or_more() -> None:
    assert len({name for stem in PAPER for name in FILES[stem].targets}) >= 30


def test_there_are_a_hundred_targets_or_more() -> None:
    assert len({name for file in FILES.values() for name in file.targets}) >= 100


def test_ct_mr_and_pet_are_there() -> None:
    modalities = {context.modality for file in FILES.values() for context in file.contexts.values()}
    assert {"computed tomography", "magnetic resonance imaging", "positron emission tomography"} <= modalities


def test_a_context_of_two_files_is_the_same_in_both() -> None:
    first: dict[str, Any] = {}
    for file in FILES.values():
        for context in file.contexts.values():
            known = first.setdefault(context.name, context)
            assert (known.modality, known.region) == (context.modality, context.region)


# Labels and channels as nnU-Net's own conversion scripts, or the datasets themselves, write them.
AMOS = (
    "spleen;right kidney;left kidney;gall bladder;esophagus;liver;stomach;arota;postcava;pancreas;"
    "right adrenal gland;left adrenal gland;duodenum;bladder;prostate/uterus"
)
ATLAS = "aorta;gall_bladder;kidney_left;kidney_right;liver;pancreas;postcava;spleen;stomach"
ATLAS_MORE = (
    "adrenal_gland_left;adrenal_gland_right;bladder;celiac_trunk;colon;duodenum;esophagus;femur_left;femur_right;"
    "hepatic_vessel;intestine;lung_left;lung_right;portal_vein_and_splenic_vein;prostate;rectum"
)
HEAD_NECK = "Brainstem;SpinalCord;RightParotid;LeftParotid;Mandible;Larynx;Esophagus"
DATASETS = [
    ("Dataset218_AMOS2022_postChallenge_task1", "CT", AMOS, "amos_ct"),
    ("Dataset219_AMOS2022_postChallenge_task2", "either_CT_or_MR", AMOS, "amos"),
    ("Dataset223_AMOS2022postChallenge", "nonCT", AMOS, "amos"),
    ("Dataset600_AMOS", "MRI", AMOS, "amos"),
    ("Dataset601_AMOS_MR", "MRI", AMOS, "amos_mr"),
    ("Dataset220_KiTS2023", "CT", "kidney;masses;tumor", "kits2023"),
    ("Dataset048_KiTS2019", "CT", "kidney;tumor", "kits"),
    ("Dataset221_AutoPETII_2023", "CT;CT", "tumor", "autopet"),
    ("Dataset114_MNMs", "cineMRI", "LVBP;LVM;RV", "mnms"),
    ("Dataset027_ACDC", "cineMRI", "RV;MLV;LVC", "acdc"),
    ("Dataset137_BraTS2021", "T1;T1ce;T2;Flair", "whole tumor;tumor core;enhancing tumor", "brats"),
    ("Dataset226_BraTS2024-BraTS-GLI", "T1;T1C;T2W;T2F", "NETC;SNFH;ET;RC", "brats_gli_2024"),
    ("Dataset224_AbdomenAtlas1.0", "nonCT", ATLAS, "abdomen_atlas"),
    ("Dataset023_AbdomenAtlas1.1Mini", "CT", f"{ATLAS};{ATLAS_MORE}", "abdomen_atlas"),
    ("Dataset227_TotalSegmentatorMRI", "MRI", "spleen;kidney_right;femur_left;iliac_vena_left", "totalsegmentator_mr"),
    ("Dataset001_BrainTumour", "FLAIR;T1w;t1gd;T2w", "edema;non-enhancing tumor;enhancing tumour", "msd_brain_tumour"),
    ("Dataset002_Heart", "MRI", "left atrium", "msd_heart"),
    ("Dataset003_Liver", "CT", "liver;cancer", "lits"),
    ("Dataset004_Hippocampus", "MRI", "Anterior;Posterior", "msd_hippocampus"),
    ("Dataset005_Prostate", "T2;ADC", "PZ;TZ", "msd_prostate"),
    ("Dataset006_Lung", "CT", "cancer", "msd_lung"),
    ("Dataset007_Pancreas", "CT", "pancreas;cancer", "msd_pancreas"),
    ("Dataset008_HepaticVessel", "CT", "Vessel;Tumour", "msd_hepatic_vessel"),
    ("Dataset009_Spleen", "CT", "spleen", "msd_spleen"),
    ("Dataset010_Colon", "CT", "colon cancer primaries", "msd_colon"),
    ("Dataset601_HECKTOR2022", "CT;PET", "GTVp;GTVn", "hecktor"),
    ("Dataset050_HeadNeckCT", "CT", HEAD_NECK, "openkbp"),
    ("Dataset061_SarcomaMR", "MRI", "tumor", "soft_tissue_sarcoma"),
]


@pytest.mark.parametrize(("name", "channels", "labels", "stem"), DATASETS, ids=[row[0] for row in DATASETS])
def test_a_known_dataset_gets_its_file(name: str, channels: str, labels: str, stem: str) -> None:
    values = {"background": 0} | {label: value for value, label in enumerate(labels.split(";"), start=1)}
    dataset_json = {"channel_names": dict(enumerate(channels.split(";"))), "labels": values}
    entry = find_entry(name, dataset_json)
    assert entry.origin == str(SHIPPED_FOLDER / f"{stem}.yaml")
    assert [target.label for target in entry.targets] == labels.split(";")


def test_totalsegmentator_has_its_117_structures() -> None:
    assert len(FILES["totalsegmentator_ct"].targets) == 117


def test_a_part_of_totalsegmentator_keeps_its_pairs() -> None:
    labels = {"background": 0, "rib_left_1": 1, "rib_right_1": 2}
    dataset_json = {"channel_names": {"0": "CT"}, "labels": labels}
    entry = find_entry("Dataset295_TotalSegmentator_part5_ribs_1559subj", dataset_json)
    assert entry.targets[0].partner == "right first rib"
