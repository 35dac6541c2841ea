"""Pictures for the glass-box experiment: plain, turned, and of some classes."""

import gzip
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax import symmetry
from bort_jax.train import Dataset, load_dataset


class Task(NamedTuple):
  """Classes to tell apart."""

  data: str
  classes: tuple[int, ...]

  @property
  def name(self) -> str:
    """For tables."""
    if len(self.classes) > 2:
      return f'{self.data}, ten classes'
    return f'{self.data}, {" or ".join(map(str, self.classes))}'


class Sample(NamedTuple):
  """Pictures in 0 … 1 and their classes."""

  x: jax.Array  # (N, 28, 28, 1)
  y: np.ndarray  # (N,)


TEN_DIGITS = Task('mnist', tuple(range(10)))
# 4 and 9 look alike; 6 and 9 are turned into each other; 2 and 4 of
# Fashion-MNIST are pullovers and coats.
TASKS = (
  Task('mnist', (3, 5)),
  Task('mnist', (4, 9)),
  Task('mnist', (6, 9)),
  TEN_DIGITS,
  Task('fashion_mnist', (2, 4)),
  Task('fashion_mnist', tuple(range(10))),
)


def load(
  name: str, data_dir: pathlib.Path | None, fashion_dir: pathlib.Path
) -> Dataset | None:
  """MNIST as TFDS has it, Fashion-MNIST from idx files; None if not there."""
  if name != 'fashion_mnist':
    return load_dataset(name, data_dir)
  if not fashion_dir.is_dir():
    return None
  read = lambda file: _read_idx(fashion_dir / f'{file}-ubyte.gz')
  return Dataset(
    name,
    read('train-images-idx3')[..., None],
    read('train-labels-idx1').astype(np.int32),
    read('t10k-images-idx3')[..., None],
    read('t10k-labels-idx1').astype(np.int32),
    10,
  )


def _read_idx(path: pathlib.Path) -> np.ndarray:
  raw = gzip.decompress(path.read_bytes())
  rank = raw[3]  # after two zeros and the type, 8: bytes without sign
  shape = np.frombuffer(raw, '>i4', rank, offset=4)
  return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def drawn(
  dataset: Dataset, task: Task, train: int, test: int, seed: int
) -> tuple[Sample, Sample]:
  """A random part of the training pictures, and one of the test pictures."""
  rng = np.random.default_rng(seed)
  return (
    _part(dataset.train_images, dataset.train_labels, task, train, rng),
    _part(dataset.test_images, dataset.test_labels, task, test, rng),
  )


def _part(images, labels, task: Task, count: int, rng) -> Sample:
  rows = np.flatnonzero(np.isin(labels, task.classes))
  rows = rng.permutation(rows)[:count]
  return Sample(jnp.asarray(images[rows] / np.float32(255)), labels[rows])


def turned(x: jax.Array, seed: int) -> dict[str, jax.Array]:
  """Pictures as they are, by random quarter turns, and by any random angle."""
  rng = np.random.default_rng(seed)
  quarters = jnp.asarray(rng.integers(0, 4, len(x)))
  angles = jnp.asarray(rng.uniform(0, 2 * np.pi, len(x)), jnp.float32)
  quarter = lambda element, x: symmetry.act(symmetry.C4, element, x)
  return {
    'upright': x,
    'quarter turns': jax.jit(jax.vmap(quarter))(quarters, x),
    'any angle': jax.jit(jax.vmap(_rotated))(angles, x),
  }


def _rotated(angle: jax.Array, x: jax.Array) -> jax.Array:
  """One picture (H, W, 1), by interpolation: no exact symmetry."""
  middle = (x.shape[0] - 1) / 2
  rows, columns = jnp.meshgrid(
    *(jnp.arange(side) - middle for side in x.shape[:2]), indexing='ij'
  )
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  places = [
    cos * rows + sin * columns + middle,
    cos * columns - sin * rows + middle,
  ]
  moved = jax.scipy.ndimage.map_coordinates(x[..., 0], places, order=1)
  return moved[..., None]
