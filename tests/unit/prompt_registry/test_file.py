"""Every problem in a registry file is reported with its line."""

import re
from pathlib import Path

import pytest

from duplus_nnunet.errors import RegistryError
from duplus_nnunet.prompt_registry.registry_file import RegistryFile, check_registry_file, load_registry_file

GOOD = """\
dataset: Demo
contexts:
  demo_ct:
    modality: computed tomography
    region: abdomen
targets:
  left kidney: {labels: [LK]}
  right kidney:
    labels: [RK]
  liver:
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "demo.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def good(tmp_path: Path, old: str = "", new: str = "") -> RegistryFile:
    return load_registry_file(write(tmp_path, GOOD.replace(old, new) if old else GOOD))


def faults(tmp_path: Path, old: str, new: str) -> list[str]:
    assert old in GOOD
    file, problems = check_registry_file(write(tmp_path, GOOD.replace(old, new)))
    assert file is None
    return [f"{problem.line}: {problem.message}" for problem in problems]


def test_a_good_file_has_contexts_and_targets(tmp_path: Path) -> None:
    file = good(tmp_path)
    assert file.contexts["demo_ct"].prompt == "A computed tomography of abdomen"
    assert list(file.targets) == ["left kidney", "right kidney", "liver"]
    assert file.default_context == "demo_ct"


def test_left_and_right_find_each_other(tmp_path: Path) -> None:
    targets = good(tmp_path).targets
    assert targets["left kidney"].partner == "right kidney"
    assert targets["right kidney"].partner == "left kidney"
    assert targets["liver"].partner is None


@pytest.mark.parametrize("word", ["none", "null", "None"])
def test_a_target_may_keep_its_name_in_a_mirror_image(tmp_path: Path, word: str) -> None:
    file = good(tmp_path, "  liver:", f"  right middle lobe: {{partner: {word}}}")
    assert file.targets["right middle lobe"].partner is None


def test_missing_is_absent_unless_said_otherwise(tmp_path: Path) -> None:
    assert good(tmp_path).targets["liver"].missing == "absent"
    assert good(tmp_path, "targets:", "missing: not annotated\ntargets:").targets["liver"].missing == "not annotated"


def test_a_target_overrides_what_missing_means(tmp_path: Path) -> None:
    assert good(tmp_path, "  liver:", "  liver: {missing: not annotated}").targets["liver"].missing == "not annotated"


def test_a_written_t1_replaces_the_template(tmp_path: Path) -> None:
    file = good(tmp_path, "    region: abdomen", "    region: abdomen\n    prompt: belly scan")
    assert file.contexts["demo_ct"].prompt == "belly scan"


def test_a_file_says_where_its_parts_stand(tmp_path: Path) -> None:
    assert good(tmp_path).at("targets", "liver").endswith("demo.yaml:10")


def test_yaml_that_is_not_a_mapping(tmp_path: Path) -> None:
    _, problems = check_registry_file(write(tmp_path, "- liver\n- spleen\n"))
    assert str(problems[0]).startswith(f"{tmp_path / 'demo.yaml'}:1: ")
    assert "found a list" in str(problems[0])


def test_an_empty_file(tmp_path: Path) -> None:
    _, problems = check_registry_file(write(tmp_path, ""))
    assert "found nothing" in str(problems[0])


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    _, problems = check_registry_file(write(tmp_path, "dataset: Demo\ncontexts: [a, b\ntargets: {}\n"))
    assert problems[0].line == 3
    assert "YAML" in problems[0].message


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    _, problems = check_registry_file(tmp_path / "none.yaml")
    assert "none.yaml:1: " in str(problems[0])


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_bytes(b"dataset: \xff\xfe")
    _, problems = check_registry_file(path)
    assert "UTF-8" in str(problems[0])


def test_a_duplicate_key_names_both_lines(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "  liver:", "  liver:\n  liver:")
    assert re.match(r"11: .*'liver' .*line 10", fault)


def test_two_names_that_differ_in_case_only_name_both_lines(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "  liver:", "  liver:\n  Liver:")
    assert re.match(r"11: 'Liver' of 'Liver' .*'liver' in line 10", fault)


def test_a_synonym_of_two_targets_names_both_lines(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "  liver:", "  liver:\n    synonyms:\n      - hepar\n      - L_K")
    assert re.match(r"13: 'L_K' of 'liver' .*'left kidney' in line 7", fault)


def test_a_synonym_that_repeats_the_name(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "  liver:", "  liver: {synonyms: [LIVER]}")
    assert re.match(r"10: 'LIVER' of 'liver' .*'liver' in line 10", fault)


def test_a_left_without_its_right(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "  right kidney:\n    labels: [RK]\n", "")
    assert re.match(r"7: 'left kidney' .*'right kidney'", fault)
    assert "partner: none" in fault


def test_a_partner_that_is_not_a_target(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "  liver:", "  liver: {partner: lung}")
    assert re.search(r"'lung' of 'liver' .*'right kidney'", fault)


def test_a_partner_that_is_not_returned(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "  liver:", "  liver: {partner: left kidney}")
    assert re.search(r"'liver' .*'left kidney'.*`partner: liver`", fault)


def test_an_unknown_modality_lists_the_known(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "computed tomography", "tomographie")
    assert re.match(r"4: contexts -> demo_ct -> modality: .*'tomographie'", fault)
    assert "'magnetic resonance imaging'" in fault


def test_an_abbreviated_modality_is_to_be_spelled_out(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "computed tomography", "CT")
    assert re.search(r"'CT'.*'computed tomography'", fault)


def test_a_modality_may_have_words_around_it(tmp_path: Path) -> None:
    file = good(tmp_path, "computed tomography", "T2-weighted magnetic resonance imaging")
    assert file.contexts["demo_ct"].modality.startswith("T2-weighted")


@pytest.mark.parametrize("empty", ['""', '" "', '"-_"'])
def test_an_empty_prompt(tmp_path: Path, empty: str) -> None:
    (fault,) = faults(tmp_path, "  liver:", f"  liver: {{synonyms: [{empty}]}}")
    assert fault.startswith("10: targets -> liver -> synonyms -> 0: ")


def test_a_prompt_longer_than_encoders_read(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "  liver:", f"  liver: {{paraphrases: [{'very ' * 80}long]}}")
    assert fault.startswith("10:")
    assert "404 characters" in fault


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "  liver:", "  liver: {synonym: [hepar]}")
    assert re.match(r"10: .*'synonym'.*: synonyms", fault)


def test_an_unknown_key_of_a_context(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "    region:", "    organ: liver\n    region:")
    assert "'organ'" in fault
    assert "region" in fault


def test_a_missing_key(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "    region: abdomen\n", "")
    assert re.match(r"3: .*'region'", fault)


def test_a_yaml_truth_value_where_a_text_belongs(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "  liver:", "  liver: {synonyms: [no]}")
    assert "found False (bool)" in fault
    assert "quotes" in fault


def test_a_number_as_a_name(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "  liver:", "  7:")
    assert fault.startswith("10:")
    assert "found 7 (int)" in fault


def test_no_targets_at_all(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("targets:")] + "targets: {}\n"
    _, problems = check_registry_file(write(tmp_path, text))
    assert problems[0].line == 6


def test_a_default_context_that_is_none(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "targets:", "default_context: demo_mr\ntargets:")
    assert re.match(r"6: default_context 'demo_mr' .*'demo_ct'", fault)


def test_an_alias_that_holds_itself(tmp_path: Path) -> None:
    _, problems = check_registry_file(write(tmp_path, "dataset: &a\n  - *a\n"))
    assert [problem.line for problem in problems] == [1]


def test_all_problems_come_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    text = GOOD.replace("computed tomography", "CT").replace("    region: abdomen\n", "").replace("[LK]", "[7]")
    _, problems = check_registry_file(write(tmp_path, text))
    assert len(problems) == 3
    assert [problem.line for problem in problems] == sorted(problem.line for problem in problems)


def test_loading_raises_with_all_problems(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("computed tomography", "CT").replace("[LK]", "[7]"))
    with pytest.raises(RegistryError, match=r"demo.yaml:4: (.|\n)*demo.yaml:7: "):
        load_registry_file(path)


@pytest.mark.parametrize("name", ["Demo", "Dataset501_Demo", "Task01_demo", "DEMO"])
def test_a_file_serves_its_dataset_under_any_number(tmp_path: Path, name: str) -> None:
    assert good(tmp_path).serves(name)


def test_a_file_serves_the_further_names_it_declares(tmp_path: Path) -> None:
    file = good(tmp_path, "dataset: Demo", "dataset: Demo\ndatasets: [Dataset007_Other]")
    assert file.serves("Dataset501_other")
    assert not file.serves("Dataset501_DemoTwo")


def test_two_contexts_that_differ_in_case_only_name_both_lines(tmp_path: Path) -> None:
    second = "  Demo-CT: {modality: computed tomography, region: thorax}\n"
    (fault,) = faults(tmp_path, "targets:\n", f"{second}targets:\n")
    assert re.match(r"6: .*'Demo-CT' .*'demo_ct' in line 3", fault)


def test_a_paraphrase_of_two_targets_names_both_lines(tmp_path: Path) -> None:
    both = "  liver: {paraphrases: [the organ]}\n  spleen: {paraphrases: [The  organ]}\n"
    (fault,) = faults(tmp_path, "  liver:\n", both)
    assert re.match(r"11: .*'The  organ' of 'spleen' .*'liver' in line 10", fault)


def test_a_paraphrase_that_is_too_long_once_it_is_filled(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "  liver:\n", f"  liver: {{paraphrases: ['{'a {modality} ' * 20}']}}\n")
    assert re.match(r"10: .*'a \{modality\}.* 439 .* 300 ", fault)


def test_regions_of_contexts_and_targets_are_read(tmp_path: Path) -> None:
    assert good(tmp_path, "  liver:", "  liver: {regions: [abdomen, thorax]}").targets["liver"].regions == (
        "abdomen",
        "thorax",
    )
    file = good(tmp_path, "region: abdomen", "region: belly of a child\n    regions: [anywhere]")
    assert file.contexts["demo_ct"].regions == ("anywhere",)


def test_an_unknown_region_of_a_target_is_refused_with_its_line(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "  liver:", "  liver: {regions: [abdomin]}")
    assert fault.startswith("10: ")
    assert "'abdomin'" in fault
    assert "'abdomen'" in fault
