"""The trees of classes that come with the library.

They are ours, but for the two levels of CIFAR-100, which are published with it.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bort_jax.metrics.errors import MetricError
from bort_jax.metrics.neurons.class_tree import affinity, class_distances


class ClassTree(NamedTuple):
  """A tree and its leaves."""

  links: tuple[tuple[str, str], ...]  # (parent, child)
  classes: tuple[str, ...]  # in the order of the labels


_DIGITS = tuple(str(digit) for digit in range(10))
_FASHION = (
  'T-shirt/top',
  'Trouser',
  'Pullover',
  'Dress',
  'Coat',
  'Sandal',
  'Shirt',
  'Sneaker',
  'Bag',
  'Ankle boot',
)
_CIFAR10 = (
  'airplane',
  'automobile',
  'bird',
  'cat',
  'deer',
  'dog',
  'frog',
  'horse',
  'ship',
  'truck',
)
_SUPERCLASSES = {
  'aquatic mammals': 'beaver dolphin otter seal whale',
  'fish': 'aquarium_fish flatfish ray shark trout',
  'flowers': 'orchid poppy rose sunflower tulip',
  'food containers': 'bottle bowl can cup plate',
  'fruit and vegetables': 'apple mushroom orange pear sweet_pepper',
  'household electrical devices': 'clock keyboard lamp telephone television',
  'household furniture': 'bed chair couch table wardrobe',
  'insects': 'bee beetle butterfly caterpillar cockroach',
  'large carnivores': 'bear leopard lion tiger wolf',
  'large man-made outdoor things': 'bridge castle house road skyscraper',
  'large natural outdoor scenes': 'cloud forest mountain plain sea',
  'large omnivores and herbivores': 'camel cattle chimpanzee elephant kangaroo',
  'medium-sized mammals': 'fox porcupine possum raccoon skunk',
  'non-insect invertebrates': 'crab lobster snail spider worm',
  'people': 'baby boy girl man woman',
  'reptiles': 'crocodile dinosaur lizard snake turtle',
  'small mammals': 'hamster mouse rabbit shrew squirrel',
  'trees': 'maple_tree oak_tree palm_tree pine_tree willow_tree',
  'vehicles 1': 'bicycle bus motorcycle pickup_truck train',
  'vehicles 2': 'lawn_mower rocket streetcar tank tractor',
}
_CIFAR100 = tuple(
  sorted(name for names in _SUPERCLASSES.values() for name in names.split())
)


def _links(groups: Mapping[str, Sequence[str]]) -> tuple[tuple[str, str], ...]:
  return tuple((top, name) for top, names in groups.items() for name in names)


def _tree(
  groups: Mapping[str, Sequence[str]], classes: tuple[str, ...]
) -> ClassTree:
  return ClassTree(_links(groups), classes)


# Digits are no kin of each other.
_FLAT = _tree({'digit': _DIGITS}, _DIGITS)
_TREES = {
  'digits': _FLAT,
  'mnist': _FLAT,
  'fashion_mnist': _tree(
    {
      'article': ('clothing', 'footwear', 'accessory'),
      'clothing': ('upper body', 'lower body', 'whole body'),
      'upper body': ('T-shirt/top', 'Pullover', 'Coat', 'Shirt'),
      'lower body': ('Trouser',),
      'whole body': ('Dress',),
      'footwear': ('Sandal', 'Sneaker', 'Ankle boot'),
      'accessory': ('Bag',),
    },
    _FASHION,
  ),
  'cifar10': _tree(
    {
      'thing': ('animal', 'vehicle'),
      'animal': ('mammal', 'bird', 'frog'),
      'mammal': ('cat', 'dog', 'deer', 'horse'),
      'vehicle': ('land vehicle', 'airplane', 'ship'),
      'land vehicle': ('automobile', 'truck'),
    },
    _CIFAR10,
  ),
  'cifar100': _tree(
    {
      'thing': tuple(_SUPERCLASSES),
      **{top: tuple(names.split()) for top, names in _SUPERCLASSES.items()},
    },
    _CIFAR100,
  ),
}


def class_tree(data: str) -> ClassTree:
  """The tree of a data set, by the name that TFDS gives it.

  Args:
    data: mnist, digits, fashion_mnist, cifar10 or cifar100.

  Returns:
    Its links, and its classes in the order of their labels.

  Raises:
    MetricError: if there is no tree for it.

  Examples:
    >>> from bort_jax.metrics import neurons
    >>> tree = neurons.class_tree('cifar10')
    >>> distances = neurons.class_distances(*tree)
    >>> cat, dog, truck = map(tree.classes.index, ('cat', 'dog', 'truck'))
    >>> int(distances[cat, dog]), int(distances[cat, truck])
    (2, 6)
  """
  if data not in _TREES:
    near: list[Any] = difflib.get_close_matches(data, _TREES, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise MetricError(
      f'There is no class tree for {data!r}; there are {", ".join(_TREES)}.'
      f'{hint} Give your own: read_class_tree(path), or a matrix (K, K).'
    )
  return _TREES[data]


def class_affinity(data: str) -> jax.Array:
  """How near the classes of a data set are, by its tree.

  Digits are no kin of each other: each is near to itself alone, A = I.

  Args:
    data: see :func:`class_tree`.

  Returns:
    (K, K), see :func:`affinity`.

  Raises:
    MetricError: if there is no tree for it.

  Examples:
    >>> from bort_jax.metrics import neurons
    >>> near = neurons.class_affinity('cifar10')
    >>> near.shape, round(float(near[3, 5]), 3)  # cat and dog
    ((10, 10), 0.607)
  """
  tree = class_tree(data)
  if tree is _FLAT:
    return jnp.eye(len(tree.classes))
  return affinity(class_distances(*tree))
