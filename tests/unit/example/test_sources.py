"""The bodies of the example: the same structures in each contrast, and none that a training has seen."""

import numpy as np
import pytest

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom import make_phantom
from duplus_nnunet.data.phantom_sources import PhantomSource
from duplus_nnunet.example.sources import EXAMPLE_SOURCES, TARGETS, make_unseen_body


@pytest.mark.parametrize("source", EXAMPLE_SOURCES, ids=lambda source: source.name)
def test_labels_of_an_unseen_body_are_those_of_all_targets(source: PhantomSource) -> None:
    body = make_unseen_body(source, 0, 0)
    assert set(np.unique(body.labels)) == {0, *(LABELS[name] for name in TARGETS)}


@pytest.mark.parametrize("source", EXAMPLE_SOURCES, ids=lambda source: source.name)
def test_label_values_are_those_of_the_trained_dataset(source: PhantomSource) -> None:
    assert {name: value for value, name in enumerate(source.labels, start=1)} == {n: LABELS[n] for n in TARGETS}


def test_unseen_bodies_are_other_bodies_than_those_of_the_training() -> None:
    source = EXAMPLE_SOURCES[0]
    unseen = make_unseen_body(source, 0, 0)
    assert not np.array_equal(unseen.image, make_phantom(0, source.number, 0, source.scan).image)
    assert np.array_equal(unseen.image, make_unseen_body(source, 0, 0).image)
