"""Features of an image are those of the bottleneck of the network, and reproducible."""

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from duplus_nnunet.errors import DataError
from duplus_nnunet.networks import condition
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.imaging.image_features import (
    FeatureReader,
    HostModel,
    choose_lesions,
    name_features,
    note_lesions,
)
from duplus_nnunet.survival.training.lora import ADAPTER, attach_lora, make_lora_spec

from ...partial_plans import make_plans

SIDE = 16


def make_reader(lesions: tuple[str, ...] = ("liver",)) -> FeatureReader:
    torch.manual_seed(0)
    unet = PlainConvUNet(
        input_channels=1, n_stages=3, features_per_stage=[8, 8, 8], conv_op=nn.Conv3d, kernel_sizes=3,
        strides=[1, 2, 2], n_conv_per_stage=1, num_classes=1, n_conv_per_stage_decoder=1, conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip
    bank = PromptBank(make_plans())
    network = condition(unet, bank.embedding)
    nn.init.normal_(network.film.out.weight, std=0.3)  # type: ignore[arg-type]
    configuration = ConfigurationManager({"patch_size": [SIDE] * 3, "spacing": [2.0, 2.0, 2.0], "architecture": {}})
    host = HostModel(PlansManager(make_plans()), configuration, {"labels": {"background": 0}}, torch.device("cpu"))
    return FeatureReader(network, host, bank, choose_lesions(bank, lesions))


def test_of_one_window_the_whole_images_average_is_the_bottlenecks() -> None:
    reader, image = make_reader(("right kidney",)), torch.randn(1, SIDE, SIDE, SIDE)
    row = reader.read(image, "mr")  # in which no target is a lesion
    with torch.no_grad():
        expected = reader.network.eval().encode(image[None], reader.bank.draw("mr"))[0].mean((1, 2, 3))
    np.testing.assert_allclose(row, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert len(row) == len(name_features("mr", 8, 1, False))


def test_a_larger_image_is_read_in_windows_and_the_same_each_time() -> None:
    reader, image = make_reader(), torch.randn(1, 20, SIDE, 24)
    first = reader.read(image, "ct")
    assert len(first) == len(name_features("ct", 8, 1, True))
    np.testing.assert_array_equal(first, reader.read(image, "ct"))
    assert not np.array_equal(first, reader.read(image, "mr"))  # the context prompt steers the features


def test_padding_of_a_small_image_has_no_weight() -> None:
    reader, image = make_reader(("right kidney",)), torch.randn(1, SIDE, SIDE, SIDE // 2)
    seen = list[torch.Tensor]()
    reader.network.encoder.register_forward_hook(lambda *call: seen.append(call[2][-1][0].detach()))
    row = reader.read(image, "mr")
    inside = seen[0][..., 1:3].mean((1, 2, 3))  # of 4 bottleneck voxels along the last axis, the middle two
    np.testing.assert_allclose(row, inside.numpy(), rtol=1e-4, atol=1e-5)


def test_an_adapter_that_learned_changes_the_bottleneck_and_not_the_lesion() -> None:
    reader, image = make_reader(), torch.randn(1, 20, SIDE, SIDE)
    base = reader.read(image, "ct")
    weights = attach_lora(reader.network, make_lora_spec(reader.network, SurvivalSettings(lora_r=4)))
    np.testing.assert_array_equal(reader.read(image, "ct"), base)
    adapted = FeatureReader(reader.network, reader.host, reader.bank, reader.lesions, ADAPTER)
    np.testing.assert_allclose(adapted.read(image, "ct"), base, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for weight in weights:
            weight.add_(torch.randn(weight.shape) * 0.2)
    changed = adapted.read(image, "ct")
    kinds = np.array([kind for _, kind in name_features("ct", 8, 1, True)])
    assert np.abs(changed - base)[kinds == "pooled"].max() > 1e-3
    np.testing.assert_array_equal(changed[kinds == "measure"], base[kinds == "measure"])
    assert (reader.network.default_adapter, reader.network.decoder.deep_supervision) == ("", False)


def test_an_image_with_nan_is_refused() -> None:
    image = torch.randn(1, SIDE, SIDE, SIDE)
    image[0, 3, 3, 3] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        make_reader().read(image, "ct")


def test_lesions_are_given_or_found_by_name_and_contexts_without_one_are_noted() -> None:
    bank = PromptBank(make_plans())
    assert choose_lesions(bank, ()) == {"ct": (), "mr": ()}
    found = choose_lesions(bank, ("right kidney",))
    assert found == {"ct": ("right kidney",), "mr": ()}
    assert [note.split("'")[1] for note in note_lesions(found)] == ["mr"]
