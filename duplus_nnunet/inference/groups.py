"""Plans how many targets are predicted together, and whether the network looks at the image once for all groups."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from duplus_nnunet.inference.assembly import Memory, choose_group
from duplus_nnunet.inference.binding import BoundModel, Question
from duplus_nnunet.inference.reading import PreparedCase
from duplus_nnunet.networks.prompts import Prompts

# What a group costs, as a share of a pass of the network, if what the network computed was kept: at most.
GROUP_COST = 0.05


@dataclass(frozen=True)
class Room:
    """The memory of a case.

    Attributes:
        limit: Bytes that may be taken.
        memory: What the case takes.
        targets: Number of targets that were asked for.
        share: Part of the image that a target's box fills on the mean, 0 to 1.
    """

    limit: int
    memory: Memory
    targets: int
    share: float

    def left(self, size: int) -> int:
        """Return the bytes that are left if so many targets are predicted together."""
        return self.limit - self.memory.measure(size, self.targets, self.share)


def choose_size(room: Room) -> int:
    """Choose how many targets are predicted together.

    Raises:
        DataError: Even one target at a time needs more; the message gives the smallest sufficient limit.
    """
    return choose_group(room.limit, room.memory, room.targets, room.share)


def measure_calls(bound: BoundModel, case: PreparedCase, question: Question) -> int:
    """Return the bytes of what the network computes of a case, at most; 0 if it cannot be kept."""
    predictor = bound.model.predictor
    return predictor.measure_calls(case.data.shape[1:], question.prompts) if predictor.keeps_calls else 0


def plan_groups(room: Room, groups: Sequence[Prompts], calls: int) -> tuple[int, int]:
    """Choose how many targets are predicted together, and whether calls of the network are kept between groups.

    What is kept takes memory from the groups, which become smaller and more; it is kept if that is quicker.

    Args:
        room: The memory of the case.
        groups: Prompts that may be predicted together.
        calls: Bytes of what is kept; 0 if nothing can be.

    Returns:
        Number of targets that are predicted together, and the bytes for what is kept, 0 if nothing is.

    Raises:
        DataError: The memory is too little for a single target.
    """
    size = choose_size(room)
    passes = count_groups(groups, size)
    left = room.left(1) - calls
    if passes == 1 or not calls or left < 0:
        return size, 0
    smaller = min(size, 1 + left // room.memory.network)
    return (smaller, calls) if is_quicker(count_groups(groups, smaller), passes) else (size, 0)


def is_quicker(groups: int, passes: int) -> bool:
    """Say whether one pass of the network and groups that use what was kept of it are quicker than some passes."""
    return 1 + (groups - 1) * GROUP_COST < passes


def count_groups(groups: Iterable[Prompts], size: int) -> int:
    """Count the groups of a size or less into which groups are split."""
    return sum(-(-group.count // size) for group in groups)


def split_prompts(groups: Iterable[Prompts], size: int) -> Iterator[Prompts]:
    """Split groups of prompts into groups of a size or less."""
    for group in groups:
        for start in range(0, group.count, size):
            yield group.take(range(start, min(start + size, group.count))) if size < group.count else group
