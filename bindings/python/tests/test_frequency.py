# SPDX-License-Identifier: Apache-2.0
"""The estimator of Q, through the calls of Python; its algorithm has tests in the library."""

import math
import os
import pathlib
import threading

import numpy as np
import pytest

import negcos


def test_streaming():
    frequency = negcos.Frequency(buckets=1 << 12, learning_rate=0.5)
    for step in range(1, 9):
        frequency.update([1] + ([2] if step % 4 == 0 else []))
    found = frequency.log_probability([1, 2, 3])
    assert found.dtype == np.float64
    np.testing.assert_allclose(np.exp(found), [1, 1 / 4, 1 / 9])


def test_count_min():
    frequency = negcos.Frequency("count-min", buckets=1 << 12)
    frequency.update(np.array([5, 5, 5, 6], np.uint8))
    np.testing.assert_allclose(np.exp(frequency.log_probability((5, 6, 7))), [3 / 4, 1 / 4, 1 / 5])


def test_in_place_and_corrects_a_loss():
    frequency = negcos.Frequency(buckets=1 << 12)
    ids = np.arange(9) % 4
    for step in range(5):
        frequency.update(ids[: step + 2])
    out = np.zeros(9)
    assert frequency.log_probability(ids, out=out) is out and np.all(out <= 0)
    embeddings = np.random.default_rng(4).standard_normal((9, 3))
    corrected = negcos.evaluate(embeddings, embeddings, sampling="all", log_probability=out)
    assert corrected.loss != negcos.evaluate(embeddings, embeddings, sampling="all").loss
    only = negcos.evaluate(embeddings, embeddings, sampling="all", log_probability=out, correction="negatives-only")
    assert only.loss != corrected.loss


@pytest.mark.parametrize("convert", [str, pathlib.Path, os.fsencode])
def test_save_and_load(tmp_path, convert):
    frequency = negcos.Frequency(hashes=2, buckets=64, seed=2**64 - 1)
    frequency.update([1, -5, 2**62])
    path = convert(tmp_path / "frequency")
    frequency.save(path)
    loaded = negcos.Frequency.load(path)
    for one in (frequency, loaded):
        one.update([1])
    ids = np.arange(-9, 9)
    np.testing.assert_array_equal(frequency.log_probability(ids), loaded.log_probability(ids))


def test_errors(tmp_path):
    (tmp_path / "other").write_bytes(b"something else")
    for path in (tmp_path / "absent", tmp_path / "other", tmp_path):
        with pytest.raises(OSError) as raised:
            negcos.Frequency.load(path)
        assert isinstance(raised.value, negcos.FileError) and raised.value.name == "io"
    frequency = negcos.Frequency(buckets=16)
    with pytest.raises(OSError):
        frequency.save(tmp_path / "no folder" / "x")
    with pytest.raises(ValueError, match="null character"):
        frequency.save("a\0b")
    with pytest.raises(TypeError):
        frequency.save(3)
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        __import__("copy").copy(frequency)
    for arguments, exception, sentence in (
        ({"method": "bloom"}, ValueError, "method is 'bloom'"),
        ({"hashes": 0}, ValueError, "hashes is 0"),
        ({"hashes": 2.0}, TypeError, "hashes is a float"),
        ({"buckets": 0}, ValueError, "buckets is 0"),
        ({"learning_rate": 0}, ValueError, "learning_rate is 0"),
        ({"learning_rate": "x"}, TypeError, "learning_rate is 'x'"),
        ({"initial_gap": 0.5}, ValueError, "initial_gap is 0.5"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"method": "count-min", "initial_gap": 3}, NotImplementedError, "initial_gap"),
    ):
        with pytest.raises(exception, match=sentence) as raised:
            negcos.Frequency(**arguments)
        assert isinstance(raised.value, negcos.Error)
    for ids, exception, sentence in (
        ([[1]], ValueError, r"ids is \[1, 1\]"),
        ([1.5], TypeError, "ids is of float64"),
        ([2**63], (ValueError, TypeError), "ids"),
        (3, ValueError, r"ids is \[\]"),
    ):
        for call in (frequency.update, frequency.log_probability):
            with pytest.raises(exception, match=sentence):
                call(ids)
    for out, exception, sentence in (
        (np.zeros(2), ValueError, r"out is \[2\], expected \[3\]"),
        (np.zeros(3, np.float32), TypeError, "out is of float32"),
        (np.zeros((3, 2))[:, 0], ValueError, "out has strides"),
        ([0, 0, 0], TypeError, "out is a list"),
    ):
        with pytest.raises(exception, match=sentence):
            frequency.log_probability([1, 2, 3], out=out)
    shared = np.zeros(3, np.int64)
    with pytest.raises(ValueError, match="overlap"):
        frequency.log_probability(shared, out=shared.view(np.float64))


def test_threads_and_nothing():
    frequency = negcos.Frequency("count-min", buckets=1 << 10)
    frequency.update(np.empty(0, np.int64))
    assert frequency.log_probability(np.empty(0, np.int64)).shape == (0,)
    threads = [threading.Thread(target=lambda: [frequency.update([1, 2]) for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert frequency.log_probability([1])[0] == pytest.approx(math.log(0.5))
