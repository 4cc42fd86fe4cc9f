"""Small reports with known pixels."""

import numpy as np
from matplotlib.figure import Figure

from duplus_nnunet.model_report.blocks import Chart, Mask, Paragraph, Section, Table, ViewedCase, Viewer
from duplus_nnunet.model_report.page import Report

SHAPE = (8, 10, 12)
NASTY = "<script>window.broken = 1</script>\"'&"


def make_box(level, row, column, size=3):
    """Make a mask with a box whose lowest corner lies at a level, row and column."""
    mask = np.zeros(SHAPE, np.bool_)
    mask[level : level + size, row : row + size, column : column + size] = True
    return mask


def make_case(title="CT, case 1", targets=("liver", "spleen")):
    """Make a case in which the liver is in slices 0 to 2 and the spleen in slices 4 to 6."""
    boxes = {"liver": make_box(0, 1, 1), "spleen": make_box(4, 5, 7)}
    image = np.linspace(0, 100, num=np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    masks = [
        Mask(name, f"A computed tomography of {name}", boxes.get(name, make_box(2, 2, 2)), boxes.get(name), "Dice 1.00")
        for name in targets
    ]
    return ViewedCase(title, "A computed tomography of abdomen", image, (3.0, 2.0, 1.0), (0.0, 100.0), masks)


def make_viewer(*cases):
    return Viewer("switch", "Targets", "One image.", cases or (make_case(),))


def make_chart():
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot([1, 2], [0.5, 0.7], marker="o")
    numbers = [{"epoch": 1, "dice": 0.5}, {"epoch": 2, "dice": 0.7}]
    return Chart("loss", "Dice by epoch", "What is seen.", "It rises from 0.5 to 0.7.", figure, numbers)


def make_table(rows=30, shown=20):
    return Table("cases", "Scores of cases", ("case", "Dice"), [(f"case {row}", row / 7) for row in range(rows)], shown)


def make_report(*blocks):
    """Make a report of one section; by default with one block of each kind."""
    if not blocks:
        blocks = (Paragraph("A text."), make_table(), make_chart(), make_viewer())
    return Report("Report on Phantom", "One model.", [Section("all", "All of it", blocks)])
