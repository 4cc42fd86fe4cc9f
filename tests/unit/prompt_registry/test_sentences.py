import pytest

from duplus_nnunet.prompt_registry import Context, Entry, Target, context_sentences, entry_texts, target_sentences
from duplus_nnunet.prompt_registry.sentences import compose_prompt, split_text

CT = Context("ct", "computed tomography", "abdomen", "A computed tomography of abdomen", ("belly CT",))
SPLEEN = Target("spleen", "spleen", ("lien",))


def test_t1_is_worded_as_in_the_paper() -> None:
    assert context_sentences(CT)[0] == "A computed tomography of abdomen"


def test_t2_is_worded_as_in_the_paper() -> None:
    assert target_sentences(CT, SPLEEN)[0] == "A computed tomography of spleen"


def test_there_are_five_paraphrases_or_more() -> None:
    assert len(target_sentences(CT, SPLEEN)) >= 6
    assert len(context_sentences(CT)) >= 6


def test_each_paraphrase_names_target_and_modality() -> None:
    assert all("computed tomography" in text for text in target_sentences(CT, SPLEEN))
    assert all("spleen" in text or "lien" in text for text in target_sentences(CT, SPLEEN))


def test_wordings_are_distinct_and_repeatable() -> None:
    first = target_sentences(CT, SPLEEN)
    assert len(set(first)) == len(first)
    assert target_sentences(CT, SPLEEN) == first


def test_synonyms_give_wordings_of_their_own() -> None:
    assert "A computed tomography of lien" in target_sentences(CT, SPLEEN)


def test_hand_written_paraphrases_are_filled_in() -> None:
    target = Target("x", "x", paraphrases=("x seen by {modality} in the {region}",))
    assert "x seen by computed tomography in the abdomen" in target_sentences(CT, target)


def test_braces_of_a_name_are_left_alone() -> None:
    assert "A computed tomography of {odd}" in target_sentences(CT, Target("odd", "{odd}"))


def test_hand_written_contexts_come_before_templates() -> None:
    assert context_sentences(CT)[1] == "belly CT"


@pytest.mark.parametrize(("modality", "article"), [("ultrasound", "An"), ("x-ray imaging", "A"), ("oct", "An")])
def test_the_article_fits_the_modality(modality: str, article: str) -> None:
    assert compose_prompt(modality, "liver").split()[0] == article


def test_an_entry_needs_bare_names_and_all_wordings_once() -> None:
    entry = Entry("d", {"ct": CT}, "ct", (SPLEEN,), "here")
    texts = entry_texts(entry)
    assert len(set(texts)) == len(texts)
    assert {"spleen", *context_sentences(CT), *target_sentences(CT, SPLEEN)} == set(texts)


@pytest.mark.parametrize("text", target_sentences(CT, Target("ureter", "ureter")))
def test_the_name_is_read_out_of_every_sentence_of_a_target(text: str) -> None:
    assert split_text(text, CT.modality) == (text, "ureter")


@pytest.mark.parametrize("text", ["A computed tomography of the ureter.", "computed tomography of an ureter"])
def test_articles_and_full_stops_are_no_part_of_a_name(text: str) -> None:
    assert split_text(text, CT.modality)[1] == "ureter"


def test_a_text_without_a_modality_is_a_name() -> None:
    assert split_text(" the  ureter ", CT.modality) == ("A computed tomography of ureter", "ureter")


def test_a_sentence_that_no_template_could_have_written_stands_for_both() -> None:
    text = "on computed tomography, the ureter"
    assert split_text(text, CT.modality) == (text, text)


def test_of_two_modalities_the_longer_one_is_read_first() -> None:
    text = "A cone-beam computed tomography of the molar"
    assert split_text(text, CT.modality, ["cone-beam computed tomography"]) == (text, "molar")
