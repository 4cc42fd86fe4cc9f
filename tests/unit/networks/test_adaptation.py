"""Adapters: no effect initially, an effect on every stage after training, and none on the base."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from duplus_nnunet.errors import ModelError, PlansError, PromptError
from duplus_nnunet.inference.windows import WindowPredictor, predict_mirrored
from duplus_nnunet.networks import ConditionedUNet, Prompts, condition
from duplus_nnunet.networks.adaptation import (
    AdapterSpec,
    activate_adapter,
    attach_adapter,
    choose_convolutions,
    compute_base_checksum,
    count_parameters,
    list_lora_layers,
    merge_adapter,
    name_in_base,
    put_adapter,
    read_checksum,
    take_adapter,
)

E, F = 6, 12
NETWORKS = [PlainConvUNet, ResidualEncoderUNet]
KERNELS = [3, [[1, 1, 3], [1, 3, 3], [3, 3, 3]]]


def make_network(kind: Any = PlainConvUNet, kernels: Any = 3) -> ConditionedUNet:
    torch.manual_seed(0)
    blocks = {"n_conv_per_stage": 2} if kind is PlainConvUNet else {"n_blocks_per_stage": 2}
    unet = kind(
        input_channels=1, n_stages=3, features_per_stage=[4, 8, 8], conv_op=nn.Conv3d, kernel_sizes=kernels,
        strides=[1, 2, 2], num_classes=1, n_conv_per_stage_decoder=2, conv_bias=True, norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        deep_supervision=True, **blocks,
    )  # fmt: skip
    network = condition(unet, (E, F))
    for module in network.modules():  # a trained network steers, and no branch of it is silent
        if isinstance(module, nn.InstanceNorm3d):
            nn.init.ones_(module.weight)
    nn.init.normal_(network.film.out.weight, std=0.2)
    network.bind(Prompts(torch.randn(1, E), torch.randn(3, F)))
    return network


def attach(network: ConditionedUNet, name: str = "new", r: int = 2, **changes: Any) -> AdapterSpec:
    layers = choose_convolutions(network, changes.pop("patterns", ()), r)
    spec = AdapterSpec(name, r, 2 * r, 0.0, layers, **{"film": True, "head": True, **changes})
    attach_adapter(network, spec).reset(network)
    return spec


def randomise(network: ConditionedUNet, name: str = "new") -> None:
    """Randomise the weights of an adapter, as if it were trained."""
    torch.manual_seed(1)
    for key, value in network.named_parameters():
        if not name_in_base(key) and f".{name}." in f".{key}":
            nn.init.normal_(value, std=0.2)


def run(network: ConditionedUNet, adapter: str, x: torch.Tensor) -> torch.Tensor:
    network.default_adapter = adapter
    with torch.no_grad():
        logits: torch.Tensor = network.eval()(x)[0]
    return logits


X = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_fresh_adapter_does_nothing(kind: Any) -> None:
    network = make_network(kind)
    before = run(network, "", X)
    attach(network)
    assert torch.equal(run(network, "new", X), before)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("kernels", KERNELS)
def test_lora_reaches_the_output_of_every_conditioned_stage(kind: Any, kernels: Any) -> None:
    network = make_network(kind, kernels)
    attach(network, film=False, head=False)
    outputs: list[list[torch.Tensor]] = []
    for norm in network._conditioned:
        norm.register_forward_hook(lambda _m, _i, out: outputs[-1].append(out.detach().clone()))
    for change in (False, True):
        if change:
            randomise(network)
        outputs.append([])
        run(network, "new", X)
    assert len(outputs[0]) == len(network._conditioned)
    assert all(not torch.allclose(before, after) for before, after in zip(*outputs, strict=True))


@pytest.mark.parametrize("kind", NETWORKS)
def test_output_of_the_base_is_bitwise_unchanged(kind: Any) -> None:
    network = make_network(kind)
    before = run(network, "", X)
    attach(network)
    randomise(network)
    changed = run(network, "new", X)
    assert not torch.allclose(changed, before, atol=0.1)
    assert torch.equal(run(network, "", X), before)
    assert torch.equal(run(network, "new", X), changed)


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_weight_of_an_adapter_gets_a_gradient_and_none_of_the_base(kind: Any) -> None:
    network = make_network(kind)
    attach(network)
    randomise(network)
    network.default_adapter = "new"
    sum(level.square().mean() for level in network.train()(X)).backward()
    trained = {key: value for key, value in network.named_parameters() if value.requires_grad}
    assert {bool(name_in_base(key)) for key in trained} == {False}
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in trained.values())
    assert all(value.grad is None for key, value in network.named_parameters() if name_in_base(key))
    assert len([key for key in trained if ".lora_" in key]) == 2 * len(list_lora_layers(network)) > 10


@pytest.mark.parametrize(("film", "head"), [(False, True), (True, False), (False, False)])
def test_generators_are_trained_only_where_the_adapter_has_its_own(film: bool, head: bool) -> None:
    network = make_network()
    attach(network, film=film, head=head)
    trained = {
        key.split(".")[2] for key, value in network.named_parameters() if value.requires_grad and ".lora_" not in key
    }
    assert trained == ({"film"} if film else set()) | ({"generator", "projections"} if head else set())


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("kernels", KERNELS)
def test_merged_is_a_network_without_adapters_that_answers_alike(kind: Any, kernels: Any) -> None:
    network = make_network(kind, kernels)
    spec = attach(network)
    assert any(module.kernel_size == (1, 1, 3) for module in network.modules() if isinstance(module, nn.Conv3d)) == (
        kernels != 3
    )
    randomise(network, spec.name)
    plain = make_network(kind, kernels)
    prompts = network.prompts
    plain.load_state_dict(merge_adapter(network.state_dict(), spec))
    plain.bind(prompts)
    torch.testing.assert_close(run(plain, "", X), run(network, spec.name, X), rtol=0, atol=1e-4)


def test_taken_out_and_put_into_another_copy_of_the_base_it_is_the_same() -> None:
    network = make_network()
    other = copy.deepcopy(network)
    spec = attach(network)
    randomise(network)
    taken = take_adapter(network.state_dict(), "new")
    assert not any(name_in_base(key) for key in taken)
    attach_adapter(other, spec)
    put_adapter(other, taken, "new")
    assert torch.equal(run(other, "new", X), run(network, "new", X))


def test_weights_of_another_adapter_are_refused() -> None:
    network, other = make_network(), make_network()
    attach(network, r=2)
    attach(other, r=3)
    with pytest.raises(ModelError, match=r"'new'.*lora"):
        put_adapter(network, take_adapter(other.state_dict(), "new"), "new")


def test_several_adapters_answer_side_by_side_each_as_if_alone() -> None:
    alone = []
    for number, name in enumerate(("one", "two")):
        network = make_network()
        attach(network, name, r=2 + number)
        randomise(network, name)
        alone.append((run(network, name, X), take_adapter(network.state_dict(), name)))
    both = make_network()
    base = run(both, "", X)
    for number, (name, (_, weights)) in enumerate(zip(("one", "two"), alone, strict=True)):
        attach(both, name, r=2 + number)
        put_adapter(both, weights, name)
    for name, (answer, _) in zip(("one", "two"), alone, strict=True):
        assert torch.equal(run(both, name, X), answer)
    assert torch.equal(run(both, "", X), base)


def test_each_target_is_answered_by_the_weights_it_names() -> None:
    network = make_network()
    attach(network)
    randomise(network)
    prompts = network.prompts
    base, new = run(network, "", X), run(network, "new", X)
    network.bind(Prompts(prompts.context, prompts.targets, adapters=("new", "", "new")))
    mixed = run(network, "", X)
    for column, expected in enumerate((new, base, new)):
        torch.testing.assert_close(mixed[:, column], expected[:, column], rtol=0, atol=1e-5)
    network.bind(network.prompts.take([1]))
    torch.testing.assert_close(run(network, "new", X), base[:, 1:2], rtol=0, atol=1e-5)


def test_mixed_targets_are_answered_at_every_level_of_deep_supervision() -> None:
    network = make_network()
    attach(network)
    prompts = network.prompts
    expected = network.train()(X)
    mixed = network(X, Prompts(prompts.context, prompts.targets, adapters=("new", "", "new")))
    for level, expected_level in zip(mixed, expected, strict=True):
        torch.testing.assert_close(level, expected_level)


def test_an_adapter_for_each_target_has_to_be_named() -> None:
    with pytest.raises(PromptError, match=r"2 adapters .* 3 targets"):
        Prompts(torch.zeros(1, E), torch.zeros(3, F), adapters=("", ""))


def test_an_adapter_that_is_not_there_is_named() -> None:
    network = make_network()
    network.bind(Prompts(torch.zeros(1, E), torch.zeros(1, F), adapters=("lost",)))
    with pytest.raises(ModelError, match=r"'lost'.*none"):
        network(X)


def test_two_adapters_of_one_name_are_refused() -> None:
    network = make_network()
    attach(network)
    with pytest.raises(ModelError, match=r"already .*'new'"):
        attach(network)


def test_the_checksum_is_of_the_base_alone() -> None:
    network = make_network()
    before = compute_base_checksum(network.state_dict())
    attach(network)
    randomise(network)
    assert compute_base_checksum(network.state_dict()) == before
    with torch.no_grad():
        network.encoder.stages[0][0].convs[0].conv.base_layer.weight[0, 0, 0, 0, 0] += 1e-6
    assert compute_base_checksum(network.state_dict()) != before


def test_a_base_is_taken_over_and_the_adapter_starts_from_it() -> None:
    trained = make_network()
    nn.init.normal_(trained.film.out.bias)
    for value in trained.parameters():
        value.data += 0.01
    network = make_network()
    attach(network)
    assert network.load_pretrained(trained.state_dict()) == []
    network.bind(trained.prompts)
    assert torch.equal(run(network, "new", X), run(trained, "", X))
    assert read_checksum(network.state_dict(), "new") == compute_base_checksum(trained.state_dict())


def test_a_stock_network_is_no_base() -> None:
    network = make_network()
    weights = {key: value for key, value in network.state_dict().items() if not key.startswith(("film.", "generator."))}
    attach(network)
    with pytest.raises(ModelError, match="DuPLUS"):
        network.load_pretrained(weights)


def test_a_base_of_another_architecture_is_refused() -> None:
    network = make_network(ResidualEncoderUNet)
    attach(network)
    with pytest.raises(ModelError, match=r"encoder\..*expected"):
        network.load_pretrained(make_network().state_dict())


def test_patterns_choose_layers() -> None:
    network = make_network()
    everywhere = choose_convolutions(network, (), 2)
    encoder = choose_convolutions(network, ("^encoder",), 2)
    assert set(encoder) == {name for name in everywhere if name.startswith("encoder.")}
    assert not any("transpconv" in name or "seg_layers" in name for name in everywhere)
    assert choose_convolutions(network, (r"stages\.1", "^encoder"), 2) == tuple(
        name for name in everywhere if name.startswith("encoder.") or "stages.1" in name
    )


@pytest.mark.parametrize(
    ("pattern", "message"), [("attention", r"'attention'.* such as decoder\."), ("(", r"target_modules: '\('")]
)
def test_a_pattern_that_matches_nothing_says_what_could_match(pattern: str, message: str) -> None:
    with pytest.raises(PlansError, match=message):
        choose_convolutions(make_network(), (pattern,), 2)


def test_a_rank_larger_than_a_layer_is_refused() -> None:
    with pytest.raises(PlansError, match=r"r is 5.* encoder\.stages\.0\.0\.convs\.0\.conv .*\b4\b"):
        choose_convolutions(make_network(), (), 5)


def test_parameters_are_counted_by_what_they_belong_to() -> None:
    network = make_network()
    base = sum(value.numel() for value in network.parameters())
    spec = attach(network, film=False)
    counts = count_parameters(network.state_dict(), "new")
    assert counts["base"] == base
    assert counts["lora"] == sum(
        spec.r * (layer.weight[0].numel() + layer.out_channels)
        for layer in (wrapper.base_layer for wrapper in list_lora_layers(network).values())
    )
    assert counts["generators"] == sum(
        value.numel() for module in (network.generator, network.decoder.seg_layers) for value in module.parameters()
    )


def test_compiled_an_adapter_answers_as_it_does_without() -> None:
    network = make_network()
    attach(network)
    randomise(network)
    network.default_adapter = "new"
    activate_adapter(network, "new")
    compiled = torch.compile(network.train(), backend="aot_eager")
    for level, expected in zip(compiled(X), network(X), strict=True):
        torch.testing.assert_close(level, expected)


def test_mirror_images_are_those_that_each_adapter_and_the_base_saw() -> None:
    network = make_network()
    attach(network)
    randomise(network)
    prompts = network.prompts
    owners = ("new", "", "new")
    host = WindowPredictor(device=torch.device("cpu"), allow_tqdm=False)
    host.network, host.left_right_axis = network.eval(), None
    host.allowed_mirroring_axes, host.mirroring = (0, 1, 2), {"new": (0, 1, 2), "": (1,)}
    network.decoder.deep_supervision = False
    with torch.inference_mode():
        expected = []
        for place, owner in enumerate(owners):
            network.bind(replace(prompts.take([place]), adapters=(owner,)))
            axes = host.mirroring[owner]
            expected.append(predict_mirrored(network, network, X, axes, None))
        network.bind(replace(prompts, adapters=owners))
        found = host._internal_maybe_mirror_and_predict(X)
    torch.testing.assert_close(found, torch.cat(expected, 1), rtol=0, atol=1e-5)
    assert network.prompts.adapters == owners
