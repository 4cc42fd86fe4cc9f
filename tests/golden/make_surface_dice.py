"""Writes surface_dice.json: surface Dice, HD95 and ASSD of generated masks, by DeepMind's program surface-distance.

Run it in an environment of its own, since the program has not been released for NumPy 2:

    pip install 'numpy<2' scipy surface-distance==0.1
    python tests/golden/make_surface_dice.py

The masks are stored with the numbers, so that a test needs neither this script nor the program.
"""

import base64
import json
from pathlib import Path

import numpy as np
import surface_distance

SHAPE = (14, 17, 19)
TOLERANCES = (0.0, 0.7, 1.0, 2.0, 3.5)
SPACINGS = {"cubic": (1.0, 1.0, 1.0), "thick slices": (3.0, 0.8, 0.8), "oblong": (2.0, 1.5, 0.7)}


def make_ellipsoid(centre, radii):
    grid = np.indices(SHAPE).astype(float)
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True)) <= 1


def make_pairs():
    ball = make_ellipsoid((6, 8, 9), (4, 5, 6))
    rng = np.random.default_rng(0)
    speckled = rng.random(SHAPE) < 0.5
    single = np.zeros(SHAPE, bool)
    single[3, 4, 5] = True
    yield "same", ball, ball
    yield "shifted", make_ellipsoid((7, 9, 9), (4, 5, 6)), ball
    yield "larger", make_ellipsoid((6, 8, 9), (5.5, 6.2, 7.4)), ball
    yield "hollow", ball & ~make_ellipsoid((6, 8, 9), (2, 3, 3)), ball
    yield "cut by the border", make_ellipsoid((0, 8, 18), (4, 5, 6)), make_ellipsoid((0, 9, 17), (4, 5, 6))
    yield "apart", make_ellipsoid((3, 3, 3), (2, 2, 2)), make_ellipsoid((11, 13, 15), (2, 2, 2))
    yield "one voxel", single, ball
    yield "speckled", speckled, rng.random(SHAPE) < 0.5


def average_both(distances):
    """Average the program's two one-sided means, each weighted by the area of its surface."""
    means = surface_distance.compute_average_surface_distance(distances)
    areas = distances["surfel_areas_gt"].sum(), distances["surfel_areas_pred"].sum()
    return float((means[0] * areas[0] + means[1] * areas[1]) / (areas[0] + areas[1]))


def pack(mask):
    return base64.b64encode(np.packbits(mask)).decode("ascii")


def main():
    entries = []
    for name, prediction, reference in make_pairs():
        for grid, spacing in SPACINGS.items():
            distances = surface_distance.compute_surface_distances(reference, prediction, spacing)
            values = [surface_distance.compute_surface_dice_at_tolerance(distances, mm) for mm in TOLERANCES]
            entries.append({"name": f"{name}, {grid}", "spacing": spacing, "surface_dice": [float(v) for v in values]})
            entries[-1]["hd95_mm"] = float(surface_distance.compute_robust_hausdorff(distances, 95))
            entries[-1]["assd_mm"] = average_both(distances)
            entries[-1] |= {"prediction": pack(prediction), "reference": pack(reference)}
    content = {"program": "surface-distance 0.1", "shape": SHAPE, "tolerances": TOLERANCES, "pairs": entries}
    Path(__file__).with_name("surface_dice.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
