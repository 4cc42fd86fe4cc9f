"""Suggests cheaper settings when a case is going to take long on a CPU."""

from dataclasses import dataclass

from duplus_nnunet.progress import describe_duration

_LONG = 300.0  # s
_STEP_SIZE = 0.75


@dataclass(frozen=True)
class Cost:
    """What determines how long a case takes, beside the image.

    Attributes:
        folds: Number of folds that are averaged.
        mirror_images: Number of images a window is predicted as, with itself.
        step_size: Distance between windows, as a share of their size.
        bfloat16_unused: Whether the processor has bfloat16 and it is not used.
    """

    folds: int
    mirror_images: int
    step_size: float
    bfloat16_unused: bool

    def list_savings(self) -> list[str]:
        """List the options that make a prediction cheaper, with what they save."""
        savings = []
        if self.mirror_images > 1:
            savings.append(f"--disable_tta (1/{self.mirror_images} of the time, without mirror images)")
        if self.step_size < _STEP_SIZE:
            share = (self.step_size / _STEP_SIZE) ** 3
            savings.append(f"-step_size {_STEP_SIZE} (about {share:.0%} of the windows)")
        if self.folds > 1:
            savings.append(f"one fold with -f (1/{self.folds} of the time)")
        if self.bfloat16_unused:
            savings.append("--precision bfloat16 (about half of the time)")
        return savings


@dataclass
class Pace:
    """Measures the first windows of a run, and gives a hint once if a case is going to take long.

    Attributes:
        cost: What determines how long a case takes.
        windows: Number of windows of the current image.
    """

    cost: Cost
    windows: int = 0
    _measured: int = 0

    def add(self, seconds: float) -> str:
        """Count a window.

        Args:
            seconds: How long it took, in s, with its mirror images.

        Returns:
            The hint, after the second window of the run, since the first one also prepares the processor; empty if
            there is none.
        """
        self._measured += 1
        total = seconds * self.windows * self.cost.folds
        if self._measured != 2 or total < _LONG:
            return ""
        folds = f" for each of {self.cost.folds} folds" if self.cost.folds > 1 else ""
        faster = ", ".join([*self.cost.list_savings(), "a GPU"])
        return (
            f"A case like this one takes about {describe_duration(total)} on the CPU: {self.windows} windows of "
            f"{seconds:.1f} s{folds}. Faster: {faster}.\n"
        )
