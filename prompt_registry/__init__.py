"""The prompt registry: the texts of the contexts and targets of datasets, and their embeddings.

Importing it loads neither torch nor transformers; a text encoder is loaded only for texts without a stored embedding.
"""

from duplus_nnunet.prompt_registry.drafting import draft_entry
from duplus_nnunet.prompt_registry.embedding import embed
from duplus_nnunet.prompt_registry.entries import Context, Entry, Target, match_context, match_target
from duplus_nnunet.prompt_registry.finding import find_entry, search_entry
from duplus_nnunet.prompt_registry.identity import EncoderIdentity
from duplus_nnunet.prompt_registry.sentences import context_sentences, entry_texts, target_sentences

__all__ = [
    "Context",
    "EncoderIdentity",
    "Entry",
    "Target",
    "context_sentences",
    "draft_entry",
    "embed",
    "entry_texts",
    "find_entry",
    "match_context",
    "match_target",
    "search_entry",
    "target_sentences",
]
