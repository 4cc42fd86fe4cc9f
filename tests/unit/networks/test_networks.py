"""FiLM, the dynamic head and their injection into nnU-Net's networks."""

import copy
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from duplus_nnunet.errors import ModelError, PlansError, PromptError
from duplus_nnunet.networks import ConditionedUNet, Prompts, condition
from duplus_nnunet.networks.film import FiLMGenerator, FiLMInstanceNorm, scale_to_norm
from duplus_nnunet.networks.head import HIDDEN_NORM, SLOPE, apply_heads, count_weights

E, F = 6, 12
NETWORKS = [PlainConvUNet, ResidualEncoderUNet]


def make_unet(kind: Any = PlainConvUNet, classes: int = 1, affine: bool = True) -> nn.Module:
    blocks = {"n_conv_per_stage": 2} if kind is PlainConvUNet else {"n_blocks_per_stage": 2}
    unet = kind(
        input_channels=1, n_stages=3, features_per_stage=[4, 8, 8], conv_op=nn.Conv3d, kernel_sizes=3,
        strides=[1, 2, 2], num_classes=classes, n_conv_per_stage_decoder=2, conv_bias=True, norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": affine}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        deep_supervision=True, **blocks,
    )  # fmt: skip
    unet.apply(unet.initialize)
    return unet


def make_prompts(targets: int = 3, images: int = 1) -> Prompts:
    return Prompts(torch.randn(images, E), torch.randn(targets, F))


def make_network(kind: Any = PlainConvUNet) -> ConditionedUNet:
    network = condition(make_unet(kind), (E, F))
    network.bind(make_prompts())
    return network


def images(batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 1, 8, 8, 8)


@pytest.mark.parametrize("kind", NETWORKS)
def test_at_the_start_features_are_those_of_nnunet(kind: Any) -> None:
    stock = make_unet(kind)
    network = condition(copy.deepcopy(stock), (E, F))
    x, prompts = images(), make_prompts()
    for norm, (gamma, beta) in zip(network._conditioned, network.film(prompts.context), strict=True):
        norm.modulate(gamma, beta)
    for ours, theirs in zip(network.encoder(x), stock.encoder(x), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("kind", "stages"), [(PlainConvUNet, 3), (ResidualEncoderUNet, 4)])
def test_every_stage_is_conditioned_but_the_stem_and_the_last(kind: Any, stages: int) -> None:
    assert len(make_network(kind)._conditioned) == stages


@pytest.mark.parametrize("kind", NETWORKS)
def test_film_reaches_every_conditioned_stage(kind: Any) -> None:
    network, x = make_network(kind), images()
    outputs: list[list[torch.Tensor]] = []
    for norm in network._conditioned:
        norm.register_forward_hook(lambda _m, _i, out: outputs[-1].append(out.detach().clone()))
    for bias in (0.0, 1.0):
        nn.init.constant_(network.film.out.bias, bias)
        outputs.append([])
        network(x)
    assert len(outputs[0]) == len(network._conditioned)
    assert all(not torch.allclose(before, after) for before, after in zip(*outputs, strict=True))


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_parameter_gets_a_gradient(kind: Any) -> None:
    network = make_network(kind)
    nn.init.normal_(network.film.out.weight)
    for module in network.modules():  # nnU-Net starts the last norm of a residual branch at 0, which stops gradients
        if isinstance(module, nn.InstanceNorm3d):
            nn.init.ones_(module.weight)
    sum(level.square().mean() for level in network(images(2))).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A conv's bias before an instance norm has no effect, in nnU-Net as here.
    assert [name for name in without if not name.endswith("conv.bias") and "all_modules" not in name] == []


def test_changing_the_target_prompt_changes_the_output() -> None:
    network, x, prompts = make_network().eval(), images(), make_prompts(2)
    first, second = network(x, prompts)[0][0]
    assert not torch.allclose(first, second)


def test_permuting_targets_permutes_outputs() -> None:
    network, x, prompts = make_network().eval(), images(), make_prompts(4)
    order = [2, 0, 3, 1]
    permuted = network(x, Prompts(prompts.context, prompts.targets[order]))[0]
    assert torch.equal(permuted, network(x, prompts)[0][:, order])


@pytest.mark.parametrize("chosen", [[0], [16], [3, 18], list(range(19))])
def test_a_target_does_not_depend_on_the_others_asked_for(chosen: list[int]) -> None:
    network, x, prompts = make_network().eval(), images(), make_prompts(19)
    alone = network(x, Prompts(prompts.context, prompts.targets[chosen]))[0]
    torch.testing.assert_close(alone, network(x, prompts)[0][:, chosen], rtol=0, atol=1e-6)


def test_each_image_can_have_its_own_context() -> None:
    network, x = make_network().eval(), images(2)
    nn.init.normal_(network.film.out.weight)
    prompts = make_prompts(2, images=2)
    both = network(x, prompts)[0]
    for b in range(2):
        alone = network(x[b : b + 1], Prompts(prompts.context[b : b + 1], prompts.targets))[0]
        torch.testing.assert_close(alone, both[b : b + 1], rtol=1e-4, atol=1e-4)


def test_evaluation_is_deterministic() -> None:
    network, x = make_network().eval(), images()
    assert torch.equal(network(x)[0], network(x)[0])


def test_logits_are_bounded_in_evaluation_only() -> None:
    network, x = make_network(), images()
    with torch.no_grad():
        network.generator.base.mul_(100)
    assert network(x)[0].abs().max() > 100
    assert network.eval()(x)[0].abs().max() <= 100


def test_bound_prompts_are_in_no_checkpoint_and_no_buffer() -> None:
    network = make_network()
    before = set(network.state_dict())
    network.bind(make_prompts(7))
    assert set(network.state_dict()) == before
    assert not [name for name, _ in network.named_buffers()]


def test_keys_of_nnunets_part_are_nnunets() -> None:
    stock = {name for name in make_unet().state_dict() if ".seg_layers." not in name}
    assert stock <= set(make_network().state_dict())


def test_a_network_can_be_copied_after_a_call() -> None:
    network = make_network()
    network(images())
    copy.deepcopy(network)


def test_compiled_equals_eager() -> None:
    network, x = make_network(), images()
    compiled = torch.compile(network, backend="aot_eager")
    for a, b in zip(compiled(x), network(x), strict=True):
        torch.testing.assert_close(a, b)


def test_calling_without_prompts_says_so() -> None:
    with pytest.raises(PromptError, match="bind"):
        condition(make_unet(), (E, F))(images())


def test_prompts_of_another_encoder_are_refused() -> None:
    with pytest.raises(PromptError, match=re.escape(f"({E + 1}, {F})")):
        make_network().bind(Prompts(torch.zeros(1, E + 1), torch.zeros(2, F)))


def test_no_target_is_refused() -> None:
    with pytest.raises(PromptError, match="target"):
        Prompts(torch.zeros(1, E), torch.zeros(0, F))


def test_a_norm_that_cannot_carry_film_is_refused() -> None:
    with pytest.raises(PlansError, match="InstanceNorm3d"):
        condition(make_unet(affine=False), (E, F))


def test_a_stock_checkpoint_is_taken_over_but_for_what_is_new() -> None:
    stock, network = make_unet(classes=5), make_network()
    fresh = network.load_pretrained(stock.state_dict())
    assert torch.equal(
        network.encoder.stages[0][0].convs[0].conv.weight, stock.encoder.stages[0][0].convs[0].conv.weight
    )
    assert all(name.startswith(("film.", "generator.", "decoder.seg_layers.")) for name in fresh)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_checkpoint_of_a_wrapped_network_is_taken_over(prefix: str) -> None:
    stock, network = make_unet(), make_network()
    network.load_pretrained({f"{prefix}{name}": value for name, value in stock.state_dict().items()})
    assert torch.equal(network.decoder.transpconvs[0].weight, stock.decoder.transpconvs[0].weight)


def test_a_deeper_network_is_refused() -> None:
    weights = {**make_unet().state_dict(), "decoder.stages.7.convs.0.conv.weight": torch.zeros(1)}
    with pytest.raises(ModelError, match=r"decoder\.stages\.7"):
        make_network().load_pretrained(weights)


def test_our_own_checkpoint_is_taken_over_whole() -> None:
    network, other = make_network(), make_network()
    assert network.load_pretrained(other.state_dict()) == []
    assert torch.equal(network.generator.base, other.generator.base)


def test_weights_of_another_architecture_are_refused_and_nothing_is_loaded() -> None:
    network = make_network()
    weights = {name: value[..., :1] for name, value in network.state_dict().items()}
    before = network.generator.base.clone()
    with pytest.raises(ModelError, match=r"encoder\..*expected"):
        network.load_pretrained(weights)
    assert torch.equal(network.generator.base, before)


def test_film_generator_starts_as_the_identity() -> None:
    for gamma, beta in FiLMGenerator(E, [3, 5], 4)(torch.randn(2, E)):
        assert torch.equal(gamma, torch.ones_like(gamma))
        assert torch.equal(beta, torch.zeros_like(beta))


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 3), channels=st.integers(1, 4), seed=st.integers(0, 99))
def test_folded_film_equals_film_as_a_layer(batch: int, channels: int, seed: int) -> None:
    torch.manual_seed(seed)
    norm = nn.InstanceNorm3d(channels, affine=True)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x, gamma, beta = torch.randn(batch, channels, 3, 4, 5), torch.randn(batch, channels), torch.randn(batch, channels)
    folded = FiLMInstanceNorm.from_norm(norm)
    folded.modulate(gamma, beta)
    expected = norm(x) * gamma[..., None, None, None] + beta[..., None, None, None]
    torch.testing.assert_close(folded(x), expected, rtol=1e-4, atol=1e-4)


def plain_heads(maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Compute the head by its formula."""
    f, square = maps.shape[1], maps.shape[1] ** 2
    out = []
    for b, image in enumerate(maps.flatten(2)):
        for w in weights[b]:
            h = functional.leaky_relu(w[:square].view(f, f) @ image + w[square : square + f, None], SLOPE)
            rest = w[square + f :]
            h = functional.leaky_relu(rest[:square].view(f, f) @ h + rest[square : square + f, None], SLOPE)
            out.append(rest[square + f : -1] @ h + rest[-1])
    return torch.stack(out).view(len(maps), -1, *maps.shape[2:])


@settings(max_examples=15, deadline=None)
@given(batch=st.integers(1, 2), targets=st.integers(1, 20), features=st.integers(1, 8), seed=st.integers(0, 99))
def test_blocked_heads_and_their_gradients_equal_the_formula(
    batch: int, targets: int, features: int, seed: int
) -> None:
    torch.manual_seed(seed)
    maps = torch.randn(batch, features, 2, 3, 4, requires_grad=True)
    weights = torch.randn(batch, targets, count_weights(features), requires_grad=True)
    ours, plain = apply_heads(maps, weights), plain_heads(maps, weights)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
    upstream = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, (maps, weights), upstream),
        torch.autograd.grad(plain, (maps, weights), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_heads_of_a_large_map_are_walked_in_blocks_without_a_seam() -> None:
    maps, weights = torch.randn(1, 8, 20, 60, 60), torch.randn(1, 17, count_weights(8))
    torch.testing.assert_close(apply_heads(maps, weights), plain_heads(maps, weights), rtol=1e-3, atol=1e-3)


def test_memory_estimate_counts_projection_and_logits() -> None:
    network = make_network()
    few = network.compute_conv_feature_map_size((8, 8, 8))
    network.bind(make_prompts(10))
    assert network.compute_conv_feature_map_size((8, 8, 8)) - few == 7 * 8**3


@pytest.fixture
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this processor for one that has bfloat16; where it has none, torch imitates it."""
    monkeypatch.setattr("duplus_nnunet.networks.precision.has_bfloat16", lambda: True)


@pytest.mark.usefixtures("with_bfloat16")
@pytest.mark.parametrize("kind", NETWORKS)
def test_bfloat16_is_for_convolutions_only_and_logits_are_float32(kind: Any) -> None:
    network, x, types = make_network(kind), images(), set()
    network.cpu_bfloat16 = True
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(lambda _m, _i, out: types.add(out.dtype))
    logits = network(x)
    assert types == {torch.bfloat16}
    assert {level.dtype for level in logits} == {torch.float32}


@pytest.mark.usefixtures("with_bfloat16")
def test_bfloat16_changes_logits_and_gradients_by_its_rounding_only() -> None:
    network, x = make_network(), images(2)
    found = []
    for wanted in (False, True):
        network.cpu_bfloat16 = wanted
        network.zero_grad()
        levels = network(x)
        sum(level.square().mean() for level in levels).backward()
        found.append((levels[0].detach(), torch.cat([p.grad.flatten() for p in network.decoder.parameters()])))
    for exact, mixed in zip(*found, strict=True):
        assert not torch.equal(exact, mixed)
        assert functional.cosine_similarity(exact.flatten(), mixed.flatten(), dim=0) > 0.95


def test_without_bfloat16_in_the_processor_the_setting_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duplus_nnunet.networks.precision.has_bfloat16", lambda: False)
    network, x = make_network(), images()
    before = network(x)[0]
    network.cpu_bfloat16 = True
    assert torch.equal(network(x)[0], before)


def test_prompts_are_embedded_once_for_all_windows() -> None:
    network, calls = make_network().eval(), []
    network.film.register_forward_hook(lambda *_: calls.append("film"))
    network.generator.from_target.register_forward_hook(lambda *_: calls.append("head"))
    with torch.inference_mode():
        first = network(images())[0]
        for _ in range(3):
            network(images())
    assert calls.count("film") == 1
    assert first.shape[1] == 3


def test_what_is_computed_once_follows_prompts_and_weights() -> None:
    network, other, x = make_network().eval(), make_network().eval(), images()
    prompts = make_prompts(), make_prompts()
    with torch.inference_mode():
        logits = [network(x, each)[0] for each in (*prompts, prompts[0])]
        assert torch.equal(logits[0], logits[2])
        assert not torch.equal(logits[0], logits[1])
        network.load_state_dict(other.state_dict())
        assert torch.equal(network(x, prompts[0])[0], other(x, prompts[0])[0])


def test_training_clears_the_cached_conditioning() -> None:
    network, x, prompts = make_network(), images(), make_prompts()
    network.eval()
    with torch.inference_mode():
        network(x, prompts)
    network.train()
    with torch.no_grad():
        network.film.out.bias += 1.0
    network.eval()
    with torch.inference_mode():
        kept = network(x, prompts)[0]
    assert torch.allclose(kept, network(x, prompts)[0])


def test_a_few_prompts_of_many_give_their_own_channels() -> None:
    network, x, prompts = make_network().eval(), images(), make_prompts(5)
    prompts = replace(prompts, mirrored=make_prompts(5))
    with torch.inference_mode():
        everything, some = (network(x, each)[0] for each in (prompts, prompts.take([3, 1])))
    assert torch.equal(some, everything[:, [3, 1]])
    assert prompts.mirrored is not None
    assert torch.equal(prompts.take([4]).mirrored.targets, prompts.mirrored.targets[4:])


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_conditioning_is_bounded_however_long_embeddings_are(scale: float) -> None:
    network = make_network()
    film, generator = network.film, network.generator
    nn.init.normal_(film.out.weight)
    for gamma, beta in film(scale * torch.randn(4, E)):
        assert bool((gamma - 1).norm() <= film.out.weight.norm() * 2)
        assert bool(beta.norm() <= film.out.weight.norm() * 2)
    weights = generator(scale * torch.randn(5, F), scale * torch.randn(2, 8))
    changes = weights - generator.base - generator.out.bias
    assert bool((changes.norm(dim=-1) <= generator.out.weight.norm() * HIDDEN_NORM * 1.001).all())


def test_a_patch_of_nothing_gives_finite_gradients() -> None:
    network = make_network()
    sum(level.square().sum() for level in network(torch.zeros(2, 1, 8, 8, 8))).backward()
    assert all(bool(weight.grad.isfinite().all()) for weight in network.parameters() if weight.grad is not None)
    zero = torch.zeros(3, 4, requires_grad=True)
    scale_to_norm(zero, 1.0).sum().backward()
    assert zero.grad is not None
    assert float(zero.grad.abs().max()) < 100


@given(length=st.floats(0.5, 20), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_vectors_are_scaled_to_one_length_and_keep_their_direction(length: float, seed: int) -> None:
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(seed)) * 30
    scaled = scale_to_norm(x, length)
    torch.testing.assert_close(scaled.norm(dim=-1), torch.full((3,), length), rtol=1e-3, atol=0)
    torch.testing.assert_close(functional.normalize(scaled, dim=-1), functional.normalize(x, dim=-1))
