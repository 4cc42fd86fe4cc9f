"""Chooses the orientation that a network is trained in, and decides how each image is turned to it."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from duplus_nnunet.data.image_headers import inspect_image
from duplus_nnunet.data.orientations import (
    NO_REORIENTATION,
    ORIENTATIONS,
    Orientation,
    Reorientation,
    find_across,
    find_orientation,
    find_turn,
    read_orientation,
)
from duplus_nnunet.planners.survey import CaseSurvey
from duplus_nnunet.plans_form import PlansForm

# nnU-Net's readers of these names put the first axis of the file last.
_READERS_BY_HEADER = ("SimpleITKIO", "NibabelIO")
# These turn every image to the same orientation, and label maps back when they write them.
_READERS_REORIENTED = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")
REORIENTED = "RAS"


@dataclass(frozen=True)
class TrainingOrientation:
    """How the training images of a dataset lie.

    Attributes:
        name: Orientation that all images are turned to, such as LPS; None: images stay as their reader gives them.
        across: Array axis (z, y, x) from left to right of the images after that; None: unknown.
        turned: Orientation of each case that has another one.
    """

    name: str | None = None
    across: int | None = None
    turned: Mapping[str, str] = field(default_factory=dict)

    def turn_surveys(self, surveys: Mapping[str, CaseSurvey]) -> dict[str, CaseSurvey]:
        """Return surveys of cases with spacing and shape in the axes of the images after they were turned."""
        return {case: self._turn_survey(case, survey) for case, survey in surveys.items()}

    def _turn_survey(self, case: str, survey: CaseSurvey) -> CaseSurvey:
        turn = self._find_turn(case)
        return replace(survey, spacing=turn.sort(survey.spacing), shape=turn.sort(survey.shape))

    def turn_fingerprint(self, fingerprint: Mapping[str, Any], cases: Sequence[str]) -> dict[str, Any]:
        """Return nnU-Net's fingerprint likewise; its lists are in the order of the cases."""
        turns = [self._find_turn(case) for case in cases]
        lists = {
            key: [list(turn.sort(values)) for turn, values in zip(turns, fingerprint[key], strict=True)]
            for key in ("spacings", "shapes_after_crop")
        }
        return {**fingerprint, **lists}

    def _find_turn(self, case: str) -> Reorientation:
        stored = self.turned.get(case)
        return NO_REORIENTATION if stored is None or self.name is None else find_turn(stored, self.name)


def read_training_orientation(
    dataset: Mapping[str, Mapping[str, Any]], reader_name: str, wanted: str | None = None
) -> TrainingOrientation:
    """Choose the orientation of training: the most frequent one among the images, or that of a base model.

    Args:
        dataset: nnU-Net's mapping of case identifiers to {"images": [files], "label": file}.
        reader_name: Name of nnU-Net's reader that the plans chose.
        wanted: Orientation of the model that the dataset is planned for; None: unknown, or there is none.

    Raises:
        DataError: The header of an image cannot be used.
    """
    if reader_name in _READERS_REORIENTED:
        return TrainingOrientation(None, find_across(REORIENTED))
    if reader_name not in _READERS_BY_HEADER:
        return TrainingOrientation()
    found = {
        case: find_orientation(inspect_image(Path(files["images"][0]), reader_name).direction)
        for case, files in dataset.items()
    }
    counts = Counter(orientation.name for orientation in found.values())
    name = wanted or min(counts, key=lambda own: (-counts[own], ORIENTATIONS.index(own)), default=None)
    if name is None:
        return TrainingOrientation()
    across = find_across(name) if all(orientation.has_sides for orientation in found.values()) else None
    turned = {case: orientation.name for case, orientation in found.items() if orientation.name != name}
    if turned:
        sys.stdout.write(f"{len(turned)} of {len(found)} images are stored in another orientation than {name}, and are "
                         f"turned to it: {_list_orientations(turned)}.\n")  # fmt: skip
    return TrainingOrientation(name, across, turned)


def _list_orientations(turned: Mapping[str, str]) -> str:
    examples = {name: case for case, name in turned.items()}
    return ", ".join(f"{name} (such as {case})" for name, case in sorted(examples.items()))


@dataclass(frozen=True)
class ImageTurn:
    """How an image comes to the orientation of training.

    Attributes:
        turn: Reorientation of its array before nnU-Net's transposition.
        sides_known: Whether it may be mirrored from left to right: its left-right axis is that of the training images.
        warnings: What is doubtful about it.
    """

    turn: Reorientation = NO_REORIENTATION
    sides_known: bool = True
    warnings: tuple[str, ...] = ()


def name_reader_orientation(reader_name: str) -> str | None:
    """Return the orientation to which a reader of nnU-Net turns all images; None: it turns none."""
    return REORIENTED if reader_name in _READERS_REORIENTED else None


def name_orientation(plans: PlansForm, reader_name: str) -> str | None:
    """Return the orientation in which the network sees arrays, before nnU-Net's transposition; None: unknown."""
    return name_reader_orientation(reader_name) or plans.orientation


def find_image_turn(
    properties: Mapping[str, Any], plans: PlansForm, order: Sequence[int], reader_name: str
) -> ImageTurn:
    """Decide how an image is turned.

    Args:
        properties: The image's properties, as nnU-Net's reader gives them; without a direction, the image is taken to
            lie as the training images do.
        plans: Section of the model's plans. In plans without an orientation, images are not turned.
        order: nnU-Net's transposition.
        reader_name: Name of nnU-Net's reader.
    """
    own = read_orientation(properties)
    if own is None:
        return ImageTurn()
    sided = any(target.partner for target in plans.targets)
    if plans.orientation is not None and reader_name not in _READERS_REORIENTED:
        turn = find_turn(own.name, plans.orientation)
        known = plans.left_right_axis is None or own.has_sides
        return ImageTurn(turn, known, tuple(_describe_oblique(own, sided)))
    if plans.left_right_axis is None:
        return ImageTurn()
    known = own.has_sides and find_across(own.name) == order[plans.left_right_axis]
    unsure = sided and reader_name in _READERS_BY_HEADER
    return ImageTurn(sides_known=known, warnings=tuple(_describe_unknown(own, known)) if unsure else ())


def _describe_oblique(own: Orientation, sided: bool) -> list[str]:
    if not own.is_oblique:
        return []
    sides = " Left and right may be exchanged." if sided and not own.has_sides else ""
    return [
        f"the image is oblique (cosine {own.least:.2f}) and was taken as {own.name}, the nearest orientation.{sides}"
    ]


def _describe_unknown(own: Orientation, known: bool) -> list[str]:
    """Describe an image whose sides a model may exchange that was planned before orientations were stored."""
    if known and "L" in own.name:
        return []
    return [
        f"the image is stored as {own.name}, and the model's plans do not say how its training images were stored: if "
        "otherwise, left and right may be exchanged. If they were stored as LPS, for example, add "
        '"orientation": "LPS" to the section "duplus" of its plans.json; images are then turned.'
    ]
