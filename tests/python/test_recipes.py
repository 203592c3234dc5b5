"""How `scripts/measure_recipes.py` compares metrics: inner products in place of vectors, held against the formulas."""

import numpy as np
import pytest

import measure_recipes

IMAGES, TRAINED, DIMENSION, CLASSES = 60, 45, 100, 3


@pytest.fixture(scope="module")
def drawn():
    """(unit vectors, classes, numbers of the training images), fewer images than components."""
    rng = np.random.default_rng(0)
    classes = np.arange(IMAGES) % CLASSES
    vectors = rng.normal(size=(IMAGES, DIMENSION)) + 0.3 * classes[:, None]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), classes, np.arange(TRAINED)


def textbook(vectors, classes, train, shrinkage):
    """The vectors after within-class whitening, by the inverse root of the shrunk scatter."""
    rows, of = vectors[train], classes[train]
    means = np.array([rows[of == one].mean(axis=0) for one in range(CLASSES)])
    residuals = rows - means[of]
    scatter = residuals.T @ residuals / len(rows)
    scatter = (1 - shrinkage) * scatter + shrinkage * np.trace(scatter) / DIMENSION * np.eye(DIMENSION)
    values, directions = np.linalg.eigh(scatter)
    return (vectors - rows.mean(axis=0)) @ directions @ np.diag(values**-0.5) @ directions.T


def log_ratio(one, other, spread):
    """Of one class against two, in one direction: within 1, between `spread`."""
    both = np.array([one, other])
    of_one_class = np.array([[1 + spread, spread], [spread, 1 + spread]])
    return (both @ both / (1 + spread) - both @ np.linalg.inv(of_one_class) @ both) / 2


@pytest.mark.parametrize("shrinkage", measure_recipes.SHRINKAGES)
def test_inner_products_give_what_the_formulas_give(drawn, shrinkage):
    vectors, classes, train = drawn
    found = measure_recipes.similarities(vectors @ vectors.T, DIMENSION, train, classes)
    seen = textbook(vectors, classes, train, shrinkage)
    unit = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    np.testing.assert_allclose(found["whitened", shrinkage], unit @ unit[train].T, atol=1e-10)

    of = classes[train]
    means = np.array([seen[train][of == one].mean(axis=0) for one in range(CLASSES)])
    weights = np.array([(of == one).mean() for one in range(CLASSES)])
    spread, directions = np.linalg.eigh((means.T * weights) @ means)
    spread, directions = spread[1 - CLASSES :], directions[:, 1 - CLASSES :]
    places = seen @ directions
    for one in range(0, IMAGES, 7):
        for other in train:
            wanted = sum(map(log_ratio, places[one], places[other], spread))
            assert found["PLDA", shrinkage][one, other] == pytest.approx(wanted, abs=1e-9)


def test_folds_keep_patients_together_and_deal_each_class_out():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), 3)
    labels = (groups % 4 == 0).astype(int)
    part = measure_recipes.folds(labels, groups, np.arange(len(groups)), 5, rng)
    assert all(len(set(part[groups == group])) == 1 for group in range(40))
    for one in (0, 1):
        counts = np.bincount(part[labels == one], minlength=5)
        assert counts.max() - counts.min() <= 3
