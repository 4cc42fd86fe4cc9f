"""What is asked of a model: targets, context, free texts, and how to predict."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from duplus_nnunet.inference.cluster_settings import ClusterSettings
from duplus_nnunet.inference.contexts import ContextChoice
from duplus_nnunet.inference.dicom_input import DicomInput
from duplus_nnunet.inference.options import Options


@dataclass(frozen=True)
class Selection:
    """What a user asked for.

    Attributes:
        targets: Names as typed; empty is all.
        context: Context as typed, or one a case; None is the model's default.
        prompts: Free texts as typed.
        encoder: Where the model's own text encoder is now; None is where it was at planning.
        options: How to predict, and what to write beside the label map.
        dicom: The DICOM series that are to be predicted, if the images are DICOM.
        cluster: How the cases are shared among workers of Ray; None: this process predicts them.
        urls: URLs of images and output, by the folders that stand for them in nnU-Net's command.
    """

    targets: tuple[str, ...] = ()
    context: str | ContextChoice | None = None
    prompts: tuple[str, ...] = ()
    encoder: str | None = None
    options: Options = field(default_factory=Options)
    dicom: DicomInput | None = None
    cluster: ClusterSettings | None = None
    urls: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.targets or self.prompts) or self.context is not None
