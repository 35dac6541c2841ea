"""Trees of classes, and how near two classes are in them."""

import collections
import graphlib
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from bort_jax.metrics.errors import MetricError

_SHOWN = 8  # names in a message


def class_distances(
  links: Iterable[tuple[str, str]], classes: Sequence[str]
) -> np.ndarray:
  """Steps between classes in a tree: up to what both are, and down again.

  Args:
    links: pairs (parent, child) of names. A child of several parents, as
      WordNet has them, takes the shortest way.
    classes: the names of the classes in the order of their labels, K ≥ 1.

  Returns:
    (K, K) int: 0 for a class and itself, 2 for two children of one parent.

  Raises:
    MetricError: if a class is not in the tree, two of them have nothing in
      common or one name, or the links go in a circle.

  Examples:
    >>> from bort_jax.metrics import neurons
    >>> links = [('thing', 'animal'), ('animal', 'cat'), ('animal', 'dog')]
    >>> links += [('thing', 'ship')]
    >>> neurons.class_distances(links, ['cat', 'dog', 'ship'])
    array([[0, 2, 3],
           [2, 0, 3],
           [3, 3, 0]])
  """
  parents = _parents(links)
  _check_names(classes, parents)
  _check_no_circle(parents)
  below: dict[str, tuple[list[int], list[int]]] = collections.defaultdict(
    lambda: ([], [])
  )
  for label, name in enumerate(classes):
    for ancestor, steps in _steps_up(name, parents).items():
      labels, heights = below[ancestor]
      labels.append(label)
      heights.append(steps)
  far = np.iinfo(np.int64).max
  found = np.full((len(classes), len(classes)), far)
  for labels, heights in below.values():
    height = np.asarray(heights)
    block = np.ix_(labels, labels)
    found[block] = np.minimum(found[block], height[:, None] + height)
  apart = np.argwhere(found == far)
  if len(apart):
    one, other = (classes[i] for i in apart[0])
    raise MetricError(
      f'The class tree has no root: {one!r} and {other!r} have nothing above'
      ' them in common. Add a link from one name to all that have no parent.'
    )
  return found


def read_class_tree(path: pathlib.Path | str) -> list[tuple[str, str]]:
  r"""Reads a tree of classes from a file.

  Args:
    path: a text of lines ``parent child``, such as WordNet's is-a relations of
      the ids that ImageNet names its classes by. Names with spaces are
      separated by a tab. Empty lines, and those that begin with #, are skipped.

  Returns:
    The pairs, as :func:`class_distances` takes them.

  Raises:
    MetricError: if the file cannot be read, or a line is no pair.

  Examples:
    >>> import pathlib, tempfile
    >>> from bort_jax.metrics import neurons
    >>> with tempfile.TemporaryDirectory() as directory:
    ...   path = pathlib.Path(directory, 'tree.txt')
    ...   _ = path.write_text('n00001740 n00001930\n')
    ...   neurons.read_class_tree(path)
    [('n00001740', 'n00001930')]
  """
  path = pathlib.Path(path)
  try:
    lines = path.read_text('utf-8').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise MetricError(
      f'The class tree {path} cannot be read ({error}). It must be a text of'
      " lines 'parent child'."
    ) from None
  links = []
  for number, line in enumerate(lines, 1):
    if not line.strip() or line.startswith('#'):
      continue
    names = line.split('\t' if '\t' in line else None)
    if len(names) != 2:
      raise MetricError(
        f'Line {number} of the class tree {path} must be a parent and a child,'
        f' got {line!r}. Separate names that have spaces by one tab.'
      )
    links.append((names[0].strip(), names[1].strip()))
  return links


def affinity(distances: ArrayLike, scale: float = 2.0) -> jax.Array:
  """How near classes are: A = exp(−d² / 2s²) of their distances d.

  That classes count by their affinity in a tree is found of the paper, by hear-
  say; this formula and its scale are ours.

  Args:
    distances: (K, K), see :func:`class_distances`.
    scale: s > 0, in steps.

  Returns:
    (K, K) float32, 1 on the diagonal.

  Raises:
    MetricError: if the distances are no square, negative or not finite, or the
      scale is not positive.

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.metrics import neurons
    >>> near = neurons.affinity(jnp.array([[0, 2], [2, 0]]))
    >>> near[0, 0].tolist(), round(float(near[0, 1]), 3)
    (1.0, 0.607)
  """
  distances = np.asarray(distances, np.float64)
  if distances.ndim != 2 or len(set(distances.shape)) != 1:
    raise MetricError(
      f'distances must be (K, K), of K classes, got shape {distances.shape}.'
    )
  if not np.all(np.isfinite(distances) & (distances >= 0)):
    raise MetricError('distances must be finite and >= 0.')
  if not (math.isfinite(scale) and scale > 0):
    raise MetricError(f'scale must be a finite number > 0, got {scale!r}.')
  return jnp.asarray(np.exp(-np.square(distances / scale) / 2), jnp.float32)


def _parents(links: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
  parents: dict[str, set[str]] = {}
  for parent, child in links:
    parents.setdefault(parent, set())
    parents.setdefault(child, set()).add(parent)
  return parents


def _check_names(classes: Sequence[str], parents: dict[str, Any]) -> None:
  if isinstance(classes, str) or not len(classes):
    raise MetricError(
      'classes must be the names of the classes in the order of their labels,'
      f' at least one, got {classes!r}.'
    )
  twice = [n for n, c in collections.Counter(classes).items() if c > 1]
  if twice:
    raise MetricError(f'classes names {_some(twice)} more than once.')
  missing = [name for name in classes if name not in parents]
  if missing:
    raise MetricError(
      f'The class tree does not cover {len(missing)} of {len(classes)} classes:'
      f' {_some(missing)}. Add a link (parent, child) for each, or give their'
      ' names as the tree has them.'
    )


def _check_no_circle(parents: dict[str, set[str]]) -> None:
  try:
    graphlib.TopologicalSorter(parents).prepare()
  except graphlib.CycleError as error:
    circle = ' → '.join(map(repr, error.args[1]))
    raise MetricError(
      f'The class tree goes in a circle: {circle}. Remove one of these links.'
    ) from None


def _some(names: Sequence[str]) -> str:
  shown = ', '.join(map(repr, names[:_SHOWN]))
  return shown if len(names) <= _SHOWN else f'{shown}, …'


def _steps_up(name: str, parents: dict[str, set[str]]) -> dict[str, int]:
  """Everything a class is, and how many steps up: first itself, with 0."""
  steps, edge = {name: 0}, [name]
  while edge:
    above = {p for child in edge for p in parents[child]}
    height = steps[edge[0]] + 1
    edge = [p for p in above if p not in steps]
    steps |= dict.fromkeys(edge, height)
  return steps
