"""k-means as good as scikit-learn's, and what it does where there is little to cluster."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from cluster import kmeans
from cluster.kmeans import k_means
from modules.console import UserError


def speechlike(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Targets held for some frames, smoothed, with noise."""
    rng = np.random.default_rng(seed)
    path = np.repeat(rng.standard_normal((40, size)), 8, axis=0)[rng.permutation(320)]
    frames = path[rng.integers(0, len(path), count)] + 0.3 * rng.standard_normal((count, size))
    return frames.astype(np.float32)


def noise(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, size), np.float32)


def inertia(features: np.ndarray, centres: np.ndarray) -> float:
    distances = ((features[:, None].astype(np.float64) - centres[None]) ** 2).sum(axis=2)
    return float(distances.min(axis=1).sum())


@pytest.fixture(params=["whole search", "nearby centres only"])
def search(request, monkeypatch):
    if request.param == "nearby centres only":
        monkeypatch.setattr(kmeans, "MAX_EXACT_CENTRES", 50)


@pytest.mark.parametrize(("make", "count"), [(speechlike, 70), (speechlike, 250), (noise, 250)])
def test_inertia_is_within_a_percent_of_scikit_learns(search, make, count):
    features = make(1500, 12)
    wanted = inertia(features, KMeans(count, n_init=1, random_state=0).fit(features).cluster_centers_)
    centres = k_means(features, count)
    assert centres.shape == (count, 12) and centres.dtype == np.float32
    assert inertia(features, centres) < 1.01 * wanted


def test_groups_that_lie_apart_are_found_exactly(search):
    rng = np.random.default_rng(3)
    middles = 100 * rng.standard_normal((60, 6))
    members = np.repeat(np.arange(60), 30)
    features = (middles[members] + rng.standard_normal((1800, 6))).astype(np.float32)
    found = k_means(features, 60)
    wanted = np.stack([features[members == group].mean(axis=0) for group in range(60)])
    nearest = ((wanted[:, None] - found[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert sorted(nearest) == list(range(60))
    np.testing.assert_allclose(found[nearest], wanted, atol=1e-3)


def test_pruning_keeps_the_centres_that_take_over_features():
    """On a line: 0 costs least and its feature goes to 1; so 1 stays, though it costs less than 1.5."""
    positions = np.repeat([0, 1, 1.5, 100], [1, 8, 100, 100])
    features, centres = (np.float32(x)[:, None] for x in (positions, [0, 1, 1.5, 100]))
    kept = kmeans._prune(features, centres, 2, gpu=False)
    assert kept[:, 0].tolist() == [1, 100]


def test_the_last_iteration_searches_all_centres(monkeypatch):
    """So every centre is the mean of the features that were nearest to it."""
    exact, index = [], kmeans._index
    monkeypatch.setattr(kmeans, "MAX_EXACT_CENTRES", 10)
    monkeypatch.setattr(kmeans, "_index", lambda *arguments: exact.append(arguments[-1]) or index(*arguments))
    monkeypatch.setattr(kmeans, "_prune", lambda features, centres, count, gpu: centres[:count])
    k_means(noise(600, 4), 50)
    assert exact[-1] and not any(exact[:-1])


def test_the_seed_decides_and_global_random_numbers_are_left_alone():
    features = speechlike(600, 8)
    state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, again, other = (k_means(features, 70, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(state, np.random.get_state()[1]) and torch.equal(torch_state, torch.get_rng_state())  # noqa: NPY002


@pytest.mark.parametrize("count", [1, 7, 20])
def test_fewer_features_than_centres_are_the_centres(count):
    features = speechlike(count, 4)
    centres = k_means(features, 20)
    np.testing.assert_array_equal(centres, features)
    assert centres is not features


def test_copies_of_a_few_features_give_each_of_them_once():
    distinct = speechlike(9, 16)
    centres = k_means(np.tile(distinct, (50, 1)), 20)
    assert len(centres) == 9 and inertia(distinct, centres) < 1e-6


@pytest.mark.parametrize("surplus", [0, 1, 2])
def test_barely_more_features_than_centres(surplus):
    features = speechlike(50 + surplus, 4)
    assert len(k_means(features, 50)) == 50


def test_a_gpu_is_refused_where_faiss_sees_none_and_used_where_it_does(monkeypatch, search):
    features = speechlike(500, 6)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    with pytest.raises(UserError, match="gpu=True needs a CUDA device .*faiss-gpu-cu12"):
        k_means(features, 60, gpu=True)
    moved = []
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda index: moved.append(index) or index)
    on_gpu = k_means(features, 60, gpu=True)
    monkeypatch.setattr(kmeans, "MAX_EXACT_CENTRES", 1000)
    np.testing.assert_array_equal(on_gpu, k_means(features, 60))
    assert moved and all(type(index) is faiss.IndexFlatL2 for index in moved)


def test_faiss_prints_no_warnings(capfd):
    k_means(speechlike(300, 4), 200)
    k_means(speechlike(400, 4), 1)
    assert capfd.readouterr() == ("", "")
