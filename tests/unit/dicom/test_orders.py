"""Whatever the direction, spacing and order of slices, a volume is the same."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.spatial.transform import Rotation

from duplus_nnunet.dicom.checks import make_series
from duplus_nnunet.dicom.series import Description, Slice

ABOUT = Description("1.2.3", modality="MR", image_type=("ORIGINAL", "PRIMARY"))


def make_slice(index, directions, position):
    return Slice(f"{index}", f"1.2.{index}", 0, (5, 4), (0.8, 0.7), tuple(np.ravel(directions)), tuple(position), index)


@settings(max_examples=60, deadline=None)
@given(
    st.permutations(range(7)),
    npst.arrays(float, 3, elements=st.floats(-3, 3)),
    npst.arrays(float, 3, elements=st.floats(-500, 500)),
    st.floats(0.3, 12),
    st.floats(-28, 28),
)
# Shifts of 0.098 mm along a diagonal, of which no coordinate has more than 0.07.
@example(range(7), np.array([0.0, 1.0, 1.0]), np.zeros(3), 3.0, 0.3125)
def test_slices_are_ordered_and_measured(order, turn, origin, width, tilt):
    axes = Rotation.from_rotvec(turn).as_matrix()
    shear = np.tan(np.radians(tilt)) * axes[1]
    places = origin + np.arange(7)[:, None] * width * (axes[2] + shear)
    slices = [make_slice(index, axes[:2], np.round(places[index], 6)) for index in range(7)]
    (series,) = make_series(ABOUT, [slices[index] for index in order])
    assert [one.number for one in series.slices] == list(range(7))
    assert series.is_usable
    np.testing.assert_allclose(series.spacing, (width, 0.8, 0.7), rtol=1e-4)
    shifted = 6 * width * abs(np.tan(np.radians(tilt)))
    if shifted > 0.08:
        np.testing.assert_allclose(series.tilt, abs(tilt), atol=1e-3)
    elif shifted < 0.06:
        assert series.tilt == 0
