"""Lists the texts whose embeddings ship with the package: those of the registry files and of common drafts."""

from collections.abc import Iterator

from duplus_nnunet.prompt_registry.drafting import UNKNOWN_MODALITY, UNKNOWN_REGION
from duplus_nnunet.prompt_registry.entries import Context, Target
from duplus_nnunet.prompt_registry.finding import shipped_files
from duplus_nnunet.prompt_registry.registry_file import file_entry
from duplus_nnunet.prompt_registry.sentences import compose_prompt, context_sentences, entry_texts, target_sentences

_COMMON_MODALITIES = (
    "computed tomography",
    "magnetic resonance imaging",
    "positron emission tomography",
    UNKNOWN_MODALITY,
)
# Drafts in these modalities need no encoder for any structure of the registry.
_MODALITIES_OF_ALL_TARGETS = _COMMON_MODALITIES[:2]
_COMMON_REGIONS = (UNKNOWN_REGION, "abdomen", "thorax", "pelvis", "head and neck", "brain", "heart", "whole body")
_COMMON_TARGETS = (
    "aorta",
    "bladder",
    "bone",
    "brain",
    "colon",
    "duodenum",
    "esophagus",
    "gallbladder",
    "heart",
    "inferior vena cava",
    "kidney",
    "kidneys",
    "left adrenal gland",
    "left kidney",
    "left lung",
    "lesion",
    "liver",
    "lung",
    "lungs",
    "lymph node",
    "pancreas",
    "prostate",
    "right adrenal gland",
    "right kidney",
    "right lung",
    "spinal cord",
    "spine",
    "spleen",
    "stomach",
    "trachea",
    "tumor",
    "uterus",
    "vertebrae",
)


def shipped_texts() -> tuple[str, ...]:
    """List all texts of the shipped store, each once."""
    texts = [text for file in shipped_files() for text in entry_texts(file_entry(file))]
    return tuple(dict.fromkeys([*texts, *_common_texts()]))


def _common_texts() -> Iterator[str]:
    known = [name for file in shipped_files() for name in file.targets]
    for modality in _COMMON_MODALITIES:
        for region in _COMMON_REGIONS:
            context = Context("", modality, region, compose_prompt(modality, region))
            yield from context_sentences(context)
        for name in (*_COMMON_TARGETS, *(known if modality in _MODALITIES_OF_ALL_TARGETS else ())):
            yield name
            yield from target_sentences(context, Target(name, name))
