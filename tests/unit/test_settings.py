"""Settings in the plans."""

import json
from typing import Any

import pytest

from duplus_nnunet.errors import PlansError
from duplus_nnunet.settings import Settings, SurvivalSettings, TextAdapterSettings, parse_settings, read_settings


def plans(**settings: Any) -> dict[str, Any]:
    return {"plans_name": "Test", "duplus": {"version": 1, "settings": settings}}


FIRST_VERSION = {
    "epochs": 5, "iterations_per_epoch": 250, "validation_iterations": 50, "save_every": 1,
    "paraphrase_probability": 0.25, "network": {},
}  # fmt: skip


def test_defaults_are_nnunets_but_for_save_every() -> None:
    found = read_settings(plans())
    assert (found.epochs, found.iterations_per_epoch, found.validation_iterations) == (1000, 250, 50)
    assert found.save_every == 1


def test_adamw_is_the_default_at_its_own_rate() -> None:
    found = read_settings(plans())
    assert (found.optimizer, found.learning_rate) == ("adamw", 1e-3)


def test_sgd_has_nnunets_rate_unless_the_plans_have_one() -> None:
    assert read_settings(plans(optimizer="sgd")).learning_rate == 1e-2
    assert read_settings(plans(optimizer="sgd", initial_learning_rate=0.1)).learning_rate == 0.1


def test_plans_of_versions_without_a_choice_of_optimizer_keep_sgd() -> None:
    found = read_settings(plans(**FIRST_VERSION, initial_learning_rate=0.01))
    assert (found.optimizer, found.learning_rate) == ("sgd", 0.01)


def test_a_user_who_writes_one_setting_gets_the_defaults_of_the_others() -> None:
    default = Settings()
    for content in ({"initial_learning_rate": 5e-4}, {"initial_learning_rate": None}, {"epochs": 3, "network": {}}):
        found = parse_settings(content)
        assert (found.optimizer, found.loss) == (default.optimizer, default.loss)
    assert parse_settings({"loss": {"reduction": "sqrt", "separation": 0.1}}).loss.dice_share == "present"


@pytest.mark.parametrize("left_out", ["optimizer", "loss", "seed", "loss.dice_share", "loss.reduction"])
def test_a_setting_that_is_left_out_of_new_plans_has_its_default(left_out: str) -> None:
    written = json.loads(json.dumps(Settings().to_dict()))
    *groups, last = left_out.split(".")
    del (written[groups[0]] if groups else written)[last]
    content = plans(**written)
    content["duplus"]["settings_version"] = 3
    assert read_settings(content) == Settings()


MIRRORED = Settings(mirror_left_right=True, mirror_other_axes=True)


@pytest.mark.parametrize("left_out", [("mirror_left_right",), ("mirror_left_right", "mirror_other_axes")])
@pytest.mark.parametrize("version", [None, 2])
def test_plans_of_earlier_versions_mirror_images_unless_they_say_otherwise(
    left_out: tuple[str, ...], version: int | None
) -> None:
    for mirrored in (True, False):
        written = {**Settings().to_dict(), **dict.fromkeys(left_out, mirrored)}
        expected = Settings(**dict.fromkeys(left_out, mirrored))
        assert parse_settings(written, version) == expected
        for name in left_out:
            del written[name]
        assert parse_settings(written, version) == Settings(**dict.fromkeys(left_out, True))
    assert parse_settings({}, version) == MIRRORED


def test_new_plans_mirror_no_image_unless_they_say_so() -> None:
    assert (Settings().mirror_left_right, Settings().mirror_other_axes) == (False, False)
    assert parse_settings({}, 3) == Settings()
    assert parse_settings({"mirror_left_right": True}, 3) == Settings(mirror_left_right=True)


def test_plans_of_versions_that_shared_dice_among_annotated_targets_keep_that() -> None:
    older = {**FIRST_VERSION, "initial_learning_rate": 0.01}
    for choice in ({}, {"optimizer": "sgd", "loss": {"reduction": "mean", "separation": 0.0}}):
        assert parse_settings({**older, **choice}).loss.dice_share == "annotated"
    assert parse_settings({"loss": {"separation": 0.1}}).loss.dice_share == "present"
    assert parse_settings({"loss": {"reduction": "sqrt"}}).loss.dice_share == "present"
    assert parse_settings({}).loss.dice_share == "present"
    assert parse_settings(parse_settings({}).to_dict()).loss.dice_share == "present"


def test_written_settings_read_back() -> None:
    written = Settings(epochs=3, paraphrase_probability=0.0)
    assert read_settings(plans(**written.to_dict())) == written


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(PlansError, match=r"'epoch'.*'epochs'"):
        read_settings(plans(epoch=3))


def test_an_unknown_network_setting_is_refused() -> None:
    with pytest.raises(PlansError, match=r"'film_hiden'.*'film_hidden'"):
        read_settings(plans(network={"film_hiden": 3}))


def test_the_text_encoder_is_not_adapted_by_default() -> None:
    assert not read_settings(plans()).text_adapter.enabled


def test_settings_of_the_adapter_survive_json() -> None:
    written = Settings(text_adapter=TextAdapterSettings(enabled=True, r=4, target_modules=("query", "key")))
    assert read_settings(plans(**json.loads(json.dumps(written.to_dict())))) == written


def test_an_unknown_adapter_setting_is_refused() -> None:
    with pytest.raises(PlansError, match=r"text_adapter.*'alpha'.*'lora_alpha'"):
        read_settings(plans(text_adapter={"alpha": 3}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"enabled": "yes"},
        {"r": 0},
        {"lora_alpha": -1},
        {"lora_dropout": 1.0},
        {"target_modules": "query"},
        {"target_modules": [""]},
        {"learning_rate_factor": 0},
    ],
)
def test_an_adapter_setting_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlansError, match=f"text_adapter.{next(iter(wrong))} is "):
        read_settings(plans(text_adapter=wrong))


def test_settings_of_the_prognosis_survive_json() -> None:
    written = Settings(survival=SurvivalSettings(loss="mtlr", bins=4, lesion_targets=("sarcoma",)))
    assert read_settings(plans(**json.loads(json.dumps(written.to_dict())))) == written


def test_an_unknown_setting_of_the_prognosis_is_refused() -> None:
    with pytest.raises(PlansError, match=r"survival.*'network'.*'networks'"):
        read_settings(plans(survival={"network": 3}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "hinge"},
        {"loss": ["cox"]},
        {"bins": 1},
        {"networks": 0},
        {"hidden": 2.5},
        {"image_features": 0},
        {"dropout": 1.0},
        {"column_dropout": -0.1},
        {"table_dropout": "none"},
        {"modality_dropout": float("nan")},
        {"endpoint": 3},
        {"lesion_targets": "sarcoma"},
        {"lesion_targets": [""]},
        {"lora_epochs": -1},
        {"lora_r": 0},
        {"lora_alpha": 0},
        {"allow_overlap": "yes"},
    ],
)
def test_a_setting_of_the_prognosis_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlansError, match=f"survival.{next(iter(wrong))} is "):
        read_settings(plans(survival=wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"epochs": "10"},
        {"save_every": True},
        {"paraphrase_probability": 2},
        {"paraphrase_probability": None},
        {"initial_learning_rate": "fast"},
        {"initial_learning_rate": float("nan")},
        {"initial_learning_rate": 0},
        {"seed": -1},
        {"seed": 1.5},
        {"optimizer": "adam"},
        {"warmup_iterations": -1},
        {"loss": {"reduction": "max"}},
        {"loss": {"separation": -0.1}},
        {"mirror_left_right": 1},
        {"mirror_other_axes": "no"},
        {"cpu_bfloat16": "yes"},
        {"context_prompt": "off"},
        {"target_prompt": "number"},
        {"network": {"film": "no"}},
    ],
)
def test_a_value_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlansError, match=next(iter(wrong))):
        read_settings(plans(**wrong))


@pytest.mark.parametrize(
    ("wrong", "where", "value", "expected"),
    [
        ({"survival": {"bins": 1}}, "settings.survival.bins", "1", "2"),
        ({"survival": {"loss": "hinge"}}, "settings.survival.loss", "'hinge'", "'deephit'"),
        (
            {"text_adapter": {"target_modules": ["query", 3]}},
            "settings.text_adapter.target_modules",
            "['query', 3]",
            "[",
        ),
        ({"network": [8]}, "duplus.settings.network", "list", "mapping"),
        ({"target_prompt": "number"}, "settings.target_prompt", "'number'", "'one-hot'"),
    ],
)
def test_a_refusal_names_the_setting_the_value_and_what_it_must_be(
    wrong: dict[str, Any], where: str, value: str, expected: str
) -> None:
    with pytest.raises(PlansError) as caught:
        read_settings(plans(**wrong))
    name, _, rest = str(caught.value).partition(" ")
    found, _, wanted = rest.partition(";")
    assert (name, value in found, expected in wanted) == (where, True, True)


def test_an_unknown_name_is_reported_before_a_wrong_value() -> None:
    with pytest.raises(PlansError, match="'epoch'"):
        read_settings(plans(epochs=0, epoch=3))


def test_an_adapted_encoder_and_no_texts_contradict_each_other() -> None:
    with pytest.raises(PlansError, match=r"text_adapter\.enabled.*'text'"):
        read_settings(plans(text_adapter={"enabled": True}, target_prompt="one-hot"))


@pytest.mark.parametrize("wrong", [{"learning_rate": 0}, {"learning_rate": "1e-3"}, {"film": 1}, {"r": 0}])
def test_a_setting_of_the_adaptation_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlansError, match=f"adaptation.{next(iter(wrong))} is "):
        read_settings(plans(adaptation=wrong))


def test_plans_of_a_newer_version_are_refused() -> None:
    with pytest.raises(PlansError, match=r"version 3\b"):
        read_settings({"plans_name": "Test", "duplus": {"version": 3}})
