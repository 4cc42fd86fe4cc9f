"""The feature map: which cases are compared, which voxels are averaged, and what is said where it cannot be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import ModelError
from duplus_nnunet.model_report import feature_map
from duplus_nnunet.model_report.feature_map import (
    MOST_CASES,
    MOST_TARGETS,
    list_usable_cases,
    make_feature_map,
    plan_sets,
)
from duplus_nnunet.model_report.feature_points import PlannedCase, Point, Points, cut_window, pool_features

from .report_sources import find_table, list_charts, list_kind, make_fold, make_source


def make_cases(context: str, targets: tuple[str, ...], count: int = 20) -> list[PlannedCase]:
    return [PlannedCase(f"{context}_{number}", f"p{number}", context, targets) for number in range(count)]


def test_the_target_of_most_contexts_and_the_context_of_most_targets_are_chosen() -> None:
    cases = [*make_cases("ct", ("liver", "spleen")), *make_cases("mr", ("liver",)), *make_cases("pet", ("tumour",))]
    (a, b), notes = plan_sets(make_source(), cases)
    assert (a.fixed, b.fixed, notes) == ("liver", "ct", [])
    assert {case.context for case in a.cases} == {"ct", "mr"}
    assert {case.targets for case in a.cases} == {("liver",)}
    assert len(a.cases) == 2 * MOST_CASES
    assert len(b.cases) == MOST_CASES


def test_the_number_of_targets_is_bounded() -> None:
    names = tuple(f"target {number:03d}" for number in range(400))
    sets, _ = plan_sets(make_source(), make_cases("ct", names))
    assert {len(case.targets) for case in sets[0].cases} == {MOST_TARGETS}


def test_a_model_of_one_context_and_one_target_has_neither_set() -> None:
    sets, notes = plan_sets(make_source(), make_cases("ct", ("liver",)))
    assert sets == []
    assert len(notes) == 2
    assert plan_sets(make_source(), [])[0] == []


def test_the_window_holds_the_target_and_pads_small_images() -> None:
    mask = np.zeros((4, 20, 20), dtype=bool)
    mask[1:3, 17:20, 0:2] = True
    image = mask[None].astype(np.float32) + 1
    window, inside = cut_window(image, mask, (8, 8, 8))
    assert window.shape == (1, 8, 8, 8)
    assert inside.sum() == mask.sum()
    assert (window[0] == 2).sum() == mask.sum()
    assert (window[0] == 0).sum() == 4 * 8 * 8


def test_a_hollow_target_is_in_the_window() -> None:
    mask = np.zeros((30, 30, 30), dtype=bool)
    mask[0], mask[-1] = True, True
    assert cut_window(np.zeros((1, 30, 30, 30), np.float32), mask, (4, 4, 4))[1].any()


class Encoder(torch.nn.Module):
    """Returns the image, and its mean over blocks of two voxels."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x, torch.nn.functional.avg_pool3d(x, 2)]


class Network(torch.nn.Module):
    """What `pool_features` needs of a network: an encoder, and a decoder whose last projection is called once."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder: Any = torch.nn.Module()
        self.decoder.deep_supervision = True
        self.decoder.seg_layers = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = self.encoder(x)
        output: torch.Tensor = self.decoder.seg_layers[-1](torch.cat([x * 3, -x], 1))
        return output + skips[0]


def test_features_are_means_over_the_voxels_of_the_target() -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.normal(size=(4, 4, 4)), np.zeros((4, 4, 4), dtype=bool)
    mask[0:2, 0:2, 0:2] = True
    mask[2, 2, 2] = True
    network: Any = Network()
    bottleneck, decoder = pool_features(network, torch.from_numpy(image)[None, None], mask)
    blocks = image.reshape(2, 2, 2, 2, 2, 2).mean(axis=(1, 3, 5))
    assert bottleneck == pytest.approx([(blocks[0, 0, 0] + blocks[1, 1, 1] / 8) / (1 + 1 / 8)])
    assert decoder == pytest.approx([3 * image[mask].mean(), -image[mask].mean()])
    assert network.decoder.deep_supervision
    assert not network.encoder._forward_hooks


def write_files(folder: Path, names: list[str]) -> Path:
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (folder / part).mkdir()
        for name in names:
            (folder / part / f"{name}{ending}").touch()
    return folder


def test_held_out_cases_come_first_and_cases_without_a_label_map_are_left_out(tmp_path: Path) -> None:
    raw = write_files(tmp_path, ["a_0", "a_1", "b_0"])
    (raw / "labelsTr" / "a_1.nii.gz").unlink()
    source = make_source([make_fold(trained=["a_0"])], raw=raw)
    cases = list_usable_cases(source, source.folds[0])
    assert [(case.name, case.context) for case in cases] == [("b_0", "mr"), ("a_0", "ct")]


def test_it_is_computed_on_request_only_and_the_cost_is_said(tmp_path: Path) -> None:
    source = make_source([make_fold()], raw=write_files(tmp_path, ["a_0", "a_1", "b_0"]))
    [text] = list_kind(make_feature_map(source, False), "absent")
    assert "3 image(s)" in text
    assert "--feature-map" in text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bank": None, "missing": {"prompts": "stock"}}, "stock"),
        ({"folds": (), "missing": {"folds": "not trained"}}, "not trained"),
        ({"missing": {"raw": "nnUNet_raw is not set"}}, "nnUNet_raw is not set"),
    ],
)
def test_where_it_cannot_be_the_reason_is_said(changes: dict[str, Any], text: str) -> None:
    section = make_feature_map(make_source(**{"folds": [make_fold()], **changes}), True)
    assert text in " ".join(list_kind(section, "absent"))


@pytest.fixture
def fake_points(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Features that differ between contexts and between targets by a distance, and one case that failed."""

    def replace(distance: float) -> None:
        def compute(_: Any, __: str, cases: list[PlannedCase], ___: Any) -> Points:
            rng = np.random.default_rng(0)
            points = []
            for case in cases[1:]:
                for number, target in enumerate(case.targets):
                    places = [rng.normal(size=4) + distance * (number + 3 * (case.context == "mr")) for _ in range(2)]
                    points.append(Point(case.name, case.patient, case.context, target, *places))
            return Points(points, {cases[0].name: "cannot be read"})

        monkeypatch.setattr(feature_map, "compute_points", compute)

    return replace


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [*make_cases("ct", ("liver", "left kidney"), 10), *make_cases("mr", ("liver",), 10)]
    monkeypatch.setattr(feature_map, "list_usable_cases", lambda *_: cases)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(("distance", "apart"), [(6.0, True), (0.0, False)])
def test_silhouettes_of_both_sets_and_layers_are_listed(
    fake_points: Callable[[float], None], tmp_path: Path, distance: float, apart: bool
) -> None:
    fake_points(distance)
    section = make_feature_map(make_source([make_fold()], raw=tmp_path), True)
    rows = find_table(section, "feature_groups").rows
    assert [row[1] for row in rows] == ["bottleneck", "the decoder's last map"] * 2
    assert [bool(float(row[6] or 1) < 0.01) for row in rows] == [apart] * 4
    assert len(list_charts(section)) == 4
    assert any("ct_0" in text for text in list_kind(section, "warning"))
    json.dumps([list(row) for row in rows], allow_nan=False)


@pytest.mark.usefixtures("many")
def test_a_model_that_cannot_be_loaded_does_not_end_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Points:
        raise ModelError("no such trainer")

    monkeypatch.setattr(feature_map, "compute_points", refuse)
    [text] = list_kind(make_feature_map(make_source([make_fold()], raw=tmp_path), True), "absent")
    assert "no such trainer" in text
