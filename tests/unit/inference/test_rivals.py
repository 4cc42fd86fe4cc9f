"""A mask does not depend on the question: targets asked alone are settled against those that were not asked for."""

import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from duplus_nnunet.inference import assembly, resampling
from duplus_nnunet.inference import predictor as predictor_module
from duplus_nnunet.inference.answering import answer_case
from duplus_nnunet.inference.binding import bind
from duplus_nnunet.inference.model import LoadedModel, ModelRecord
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.predictor import DuPLUSPredictor
from duplus_nnunet.inference.reading import InputCase, PreparedCase
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.inference.windows import WindowPredictor
from duplus_nnunet.networks import condition
from duplus_nnunet.networks.adaptation import AdapterSpec, attach_adapter, choose_convolutions, name_in_base
from duplus_nnunet.outputs.answer import CaseAnswer
from duplus_nnunet.prompt_bank import PromptBank, encode_vector, measure_centre
from duplus_nnunet.reporting.presence import PresenceCalibration

NAMES = ("liver", "left kidney", "right kidney", "spleen", "pancreas", "aorta")
PARTNERS = {"left kidney": "right kidney", "right kidney": "left kidney"}
E = 6
ADAPTED = ("spleen", "aorta")
PATCH, IMAGE, GRID = (8, 8, 8), (10, 8, 12), (11, 8, 9)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_plans(adapters: dict[str, str] | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sentences = {name: [f"CT of {name}"] for name in NAMES}
    texts = ["CT of the body", *NAMES, *(text for many in sentences.values() for text in many)]
    vectors = {text: rng.normal(size=E).astype(np.float32) for text in texts}
    centre = measure_centre(list(vectors.values()))
    return {
        "plans_name": "Test",
        "label_manager": "DuPLUSLabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "duplus": {
            "version": 1,
            "default_context": "ct",
            "contexts": {
                "ct": {
                    "sentences": ["CT of the body"],
                    "target_prompts": sentences,
                    "targets": list(NAMES),
                    **({} if adapters is None else {"adapters": adapters}),
                },
            },
            "targets": [{"name": name, "label": name, "synonyms": [], "partner": PARTNERS.get(name)} for name in NAMES],
            "centres": dict.fromkeys(("context", "sentence", "name"), centre),
            "embeddings": {text: encode_vector(vector) for text, vector in vectors.items()},
            "left_right_axis": 2,
        },
    }


def make_weights(seed: int, residual: bool = False, adapter: bool = False) -> Any:
    """Random weights whose heads differ between targets enough that most have voxels of their own."""
    # Seeds of residual encoders at which most targets have voxels of their own, too.
    torch.manual_seed(seed + (80 if adapter else 30) * residual)
    kind, blocks = (ResidualEncoderUNet, "n_blocks_per_stage") if residual else (PlainConvUNet, "n_conv_per_stage")
    unet = kind(
        input_channels=1, n_stages=2, features_per_stage=[4, 8], conv_op=nn.Conv3d, kernel_sizes=3, strides=[1, 2],
        num_classes=1, n_conv_per_stage_decoder=1, conv_bias=True, norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, **{blocks: 1},
    )  # fmt: skip
    network = condition(unet, (E, 2 * E)).eval()
    network.decoder.deep_supervision = False
    with torch.no_grad():
        network.generator.out.weight *= 3
        network.generator.from_target.weight *= 5
    if adapter:
        spec = AdapterSpec("new", 2, 4, 0.0, choose_convolutions(network, (), 2), film=True, head=True)
        attach_adapter(network, spec).reset(network)
        with torch.no_grad():
            for name, value in network.named_parameters():
                if not name_in_base(name):
                    value += 0.2 * torch.randn(value.shape)
    return network


def make_model(
    folds: int = 1,
    mirroring: bool = False,
    regions: bool = False,
    order: int = 1,
    residual: bool = False,
    adapter: bool = False,
) -> LoadedModel:
    """Make a model of six targets with random weights, without a folder; an adapter predicts two of them."""
    plans = make_plans({name: "new" if name in ADAPTED else "" for name in NAMES} if adapter else None)
    resampling = {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None}
    configuration = ConfigurationManager({
        "architecture": {}, "spacing": [1.2, 1.0, 0.8], "patch_size": list(PATCH),
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
    })  # fmt: skip
    labels = {"background": 0, **{name: value for value, name in enumerate(NAMES, 1)}}
    declared = {"labels": labels, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}}
    if regions:
        declared["regions_class_order"] = list(range(1, len(NAMES) + 1))
    predictor = WindowPredictor(0.5, use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
    networks = [make_weights(seed, residual, adapter) for seed in range(1, folds + 1)]
    predictor.network = networks[0]
    predictor.list_of_parameters = [network.state_dict() for network in networks]
    predictor.list_of_parameters[0] = {name: value.clone() for name, value in networks[0].state_dict().items()}
    predictor.conditioned_network.half_logits = True
    predictor.allowed_mirroring_axes, predictor.configuration_manager = (0, 1, 2), configuration
    predictor.mirroring = {"new": (0,)} if adapter else {}
    predictor.plans_manager = PlansManager(plans)
    return LoadedModel(
        predictor, predictor.plans_manager, configuration, declared, PromptBank(plans),
        ModelRecord("MODEL", ("0",), {}, {}), PresenceCalibration({}, ()),
    )  # fmt: skip


def make_image() -> tuple[torch.Tensor, dict[str, Any]]:
    data = torch.from_numpy(np.random.default_rng(5).normal(size=(1, *IMAGE)).astype(np.float32))
    properties = {
        "spacing": [1.0, 1.0, 1.0],
        "shape_after_cropping_and_before_resampling": GRID,
        "bbox_used_for_cropping": [[0, size] for size in GRID],
        "shape_before_cropping": GRID,
    }
    return data, properties


def predict(model: LoadedModel, targets: Sequence[str] = (), options: Options | None = None) -> CaseAnswer:
    bound = bind(model, Selection(tuple(targets), "ct", options=options or Options()))
    with torch.inference_mode():
        return answer_case(bound, PreparedCase(InputCase("image", (), None, "ct"), *make_image())).answer


class FakeReader:
    """Gives the same preprocessed image for any file."""

    def __init__(self, *_: Any) -> None:
        pass

    def read(self, source: InputCase) -> PreparedCase:
        return PreparedCase(source, *make_image())


def ask_from_threads(predictors: Sequence[DuPLUSPredictor], calls: int) -> list[str]:
    """Predict mixed targets from as many threads as predictors; returns the calls that were answered wrongly."""
    alone = DuPLUSPredictor(make_model(), Options())
    right = {asked: find_masks(alone.predict("image", asked).answer) for asked in SUBSETS}
    wrong: list[str] = []

    def work(number: int) -> None:
        for call in range(calls // len(predictors)):
            asked = SUBSETS[(call + number) % len(SUBSETS)]
            try:
                masks = find_masks(predictors[number].predict("image", asked).answer)
                if list(masks) != list(asked) or any((masks[name] != right[asked][name]).any() for name in asked):
                    wrong.append(f"{number}: {asked}")
            except Exception as error:  # in a thread, it would be lost
                wrong.append(f"{number}: {asked}: {error!r}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(predictors))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_that_share_a_predictor_get_their_own_answers(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor_module, "Reader", FakeReader)
    assert ask_from_threads([DuPLUSPredictor(make_model(), Options())] * threads, 32) == []


def test_threads_with_predictors_of_their_own_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor_module, "Reader", FakeReader)
    assert ask_from_threads([DuPLUSPredictor(make_model(), Options()) for _ in range(2)], 16) == []


def find_masks(answer: CaseAnswer) -> dict[str, Any]:
    masks = {}
    for target in answer.targets:
        masks[target.name] = np.zeros(GRID, bool)
        masks[target.name][target.box] = target.mask
        np.testing.assert_array_equal(masks[target.name], answer.labels == target.value)
    return masks


SUBSETS = [*((name,) for name in NAMES), ("left kidney", "spleen", "pancreas")]
KINDS: dict[str, dict[str, Any]] = {
    "one fold": {},
    "two folds": {"folds": 2},
    "mirrored": {"mirroring": True},
    "two folds, mirrored": {"folds": 2, "mirroring": True},
    "another resampling": {"order": 3},
    "residual encoder": {"residual": True},
    "residual encoder, two folds": {"residual": True, "folds": 2},
    "adapter": {"adapter": True},
    "adapter, two folds, mirrored": {"adapter": True, "folds": 2, "mirroring": True},
    "adapter, residual encoder": {"adapter": True, "residual": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_asked_alone_has_the_mask_of_the_full_run(kind: str) -> None:
    model = make_model(**KINDS[kind])
    full = find_masks(predict(model))
    alone = find_masks(predict(model, ["liver"], Options(rivals="asked")))
    assert sum(mask.any() for mask in full.values()) >= 4
    assert alone["liver"].sum() > full["liver"].sum() > 0
    for asked in SUBSETS:
        masks = find_masks(predict(model, asked))
        assert tuple(masks) == asked
        for name, mask in masks.items():
            np.testing.assert_array_equal(mask, full[name])


def test_a_small_memory_changes_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (assembly, resampling):
        monkeypatch.setattr(module, "SLAB", 1000)
    model = make_model(folds=2, mirroring=True)
    full = find_masks(predict(model))
    for memory, asked in itertools.product(("0.15MB", "0.3MB"), SUBSETS[-1:]):
        for name, mask in find_masks(predict(model, asked, Options(memory=memory))).items():
            np.testing.assert_array_equal(mask, full[name])
