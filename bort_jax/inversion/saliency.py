"""Saliency by backtracking single units, as published, and for a class."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bort_jax import loops
from bort_jax.inversion.backtrack import classes_of_output
from bort_jax.inversion.errors import InversionError
from bort_jax.inversion.invert import forward, invert
from bort_jax.inversion.layers import Layer, rest, until
from bort_jax.inversion.undo import Method
from bort_jax.validation import check_steps, nan_where_missing

_EPSILON = 1e-6  # the published guard against an empty map


class _Search(NamedTuple):
  """Which units are tracked back, and how."""

  num_channels: int
  skip_border: bool
  method: Method
  options: tuple[tuple[str, Any], ...]  # further ones of invert

  def back(self, function: Callable, params: Any, z: jax.Array, x: jax.Array):
    """What went in, for outputs like those of x."""
    options = dict(self.options)
    return invert(function, params, z, x, method=self.method, x=x, **options).x


class _Level(NamedTuple):
  """How much a unit is raised, and what then counts as seen."""

  response: float
  threshold: float


def saliency(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  x: jax.Array,
  target: jax.Array | None = None,
  *,
  layer: Layer,
  num_channels: int = 256,
  response: float = 1000.0,
  threshold: float = 3.0,
  skip_border: bool = True,
  method: Method = 'published',
  **options: Any,
) -> jax.Array:
  """Where the strongest units of a layer look, as published.

  Each of the channels with the largest maxima is represented by the unit of its
  maximum. That unit alone is raised to ``response`` and run backwards by g;
  where |g(z′) − g(0)|, summed over the channels of the picture, exceeds
  ``threshold`` times its mean, the unit sees the picture. The map is the sum of
  these masks, each weighted by its maximum, over the largest value. Units with
  a maximum of 0 or less do not count.

  Args:
    apply_fn: the function, see :func:`until`.
    params: its parameters.
    x: pictures (N, H, W, C).
    target: has no effect: the published map is not of a class. See
      :func:`class_saliency`.
    layer: name or number of a layer with output (N, h, w, channels), the last
      before pooling as a rule.
    num_channels: channels that take part, at most.
    response: what a unit is raised to.
    threshold: of the mask, in means.
    skip_border: whether channels with their maximum on the border are left out.
      Maps of one or two rows or columns are border all over: for them, set
      it to false.
    method: how it is run backwards, see :func:`invert`.
    **options: ``tolerance`` and numbers of steps, see :func:`invert`.

  Returns:
    (N, H, W, 1) in 0 … 1.

  Raises:
    InversionError: if there is no such layer, its output has another form, or
      it has nothing but a border.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax import inversion, nn
    >>> model = nn.create(
    ...   'simple_cnn',
    ...   image_shape=(28, 28, 1),
    ...   num_classes=10,
    ...   rngs=nnx.Rngs(0),
    ... )
    >>> apply_fn, params = nn.functional(model, 'intermediates')
    >>> x = jnp.ones((1, 28, 28, 1))
    >>> inversion.saliency(
    ...   apply_fn, params, x, layer='act3', num_channels=4
    ... ).shape
    (1, 28, 28, 1)

  References:
    Zhang et al., `Bort: Towards Explainable Neural Networks with Bounded
    Orthogonal Constraint <https://arxiv.org/abs/2212.09062>`_, 2023, Algorithm
    1, with the constants of its authors' code
  """
  del target
  function = until(apply_fn, layer)
  search = _search_of(num_channels, skip_border, method, options)
  z = _map_of(forward(function, params, x), layer, skip_border)
  level = _Level(response, threshold)
  return _saliency(function, search, level, params, x, z, z)


def class_saliency(
  apply_fn: Callable[[Any, jax.Array], Any],
  params: Any,
  x: jax.Array,
  target: jax.Array,
  *,
  layer: Layer,
  output: str = 'logits',
  num_channels: int = 256,
  response: float = 1000.0,
  threshold: float = 3.0,
  skip_border: bool = True,
  method: Method = 'published',
  **options: Any,
) -> jax.Array:
  """Where the units that speak for a class look: our own form of it.

  Like :func:`saliency`, but units are ranked and weighted by their activation
  times the derivative of the class's logit, not by their activation.

  Args:
    apply_fn: the function, see :func:`until`.
    params: its parameters.
    x: pictures (N, H, W, C).
    target: (N,) int classes.
    layer: as in :func:`saliency`.
    output: name of the logits among the function's outputs; not used where it
      returns one array.
    num_channels: as in :func:`saliency`.
    response: as in :func:`saliency`.
    threshold: as in :func:`saliency`.
    skip_border: as in :func:`saliency`.
    method: how it is run backwards, see :func:`invert`.
    **options: ``tolerance`` and numbers of steps, see :func:`invert`.

  Returns:
    (N, H, W, 1) in 0 … 1; units that speak against the class do not count.

  Raises:
    InversionError: as :func:`saliency`, if targets do not fit, and if the
      logits depend on x past the layer.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax import inversion, nn
    >>> model = nn.create(
    ...   'simple_cnn',
    ...   image_shape=(28, 28, 1),
    ...   num_classes=10,
    ...   rngs=nnx.Rngs(0),
    ... )
    >>> apply_fn, params = nn.functional(model, 'intermediates')
    >>> x = jnp.ones((1, 28, 28, 1))
    >>> inversion.class_saliency(
    ...   apply_fn, params, x, jnp.array([3]), layer='act3', num_channels=4
    ... ).shape
    (1, 28, 28, 1)
  """
  function = until(apply_fn, layer)
  search = _search_of(num_channels, skip_border, method, options)
  z = _map_of(forward(function, params, x), layer, skip_border)
  head = apply_fn, layer, output
  with jax.default_matmul_precision('highest'):
    logits = _logits.eval_shape(head, params, x, z)
    target = classes_of_output(target, logits.shape)
    strength = _evidence(head, params, x, z, target)
  level = _Level(response, threshold)
  seen = _saliency(function, search, level, params, x, z, strength)
  return nan_where_missing(seen, target, logits.shape[1])


# Compiled once for a network and layer, as the search below.
@functools.partial(jax.jit, static_argnums=0)
def _logits(head, params, x, z):
  apply_fn, layer, output = head
  return rest(apply_fn, params, x, layer, output)(z)


@functools.partial(jax.jit, static_argnums=0)
def _evidence(head, params, x, z, target):
  """What each unit adds to the logit of the class, if it adds."""
  logits, pull = jax.vjp(lambda z: _logits(head, params, x, z), z)
  (slope,) = pull(jax.nn.one_hot(target, logits.shape[1], dtype=logits.dtype))
  return jax.nn.relu(z * slope)


def _search_of(
  num_channels: int,
  skip_border: bool,
  method: Method,
  options: Mapping[str, Any],
) -> _Search:
  check_steps('num_channels', num_channels)
  return _Search(num_channels, skip_border, method, (*options.items(),))


def _map_of(z: jax.Array, layer: Layer, skip_border: bool) -> jax.Array:
  if z.ndim != 4:
    raise InversionError(
      'Saliency needs a layer with output (N, h, w, channels); that of'
      f' {layer!r} has shape {z.shape}.'
    )
  if skip_border and min(z.shape[1:3]) <= 2:
    raise InversionError(
      f'The {z.shape[1]}×{z.shape[2]} map of {layer!r} has nothing but a'
      ' border, so no unit would count: set skip_border=False.'
    )
  return z


def _saliency(
  function: Callable[[Any, jax.Array], jax.Array],
  search: _Search,
  level: _Level,
  params: Any,
  x: jax.Array,
  z: jax.Array,
  strength: jax.Array,
) -> jax.Array:
  # by itself, not in what is compiled below: invert says what fails and why
  dark = jnp.zeros_like(z)
  blank = search.back(function, params, dark, x)
  return _seen(function, search, level, params, x, z, strength, blank)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _seen(
  function, search: _Search, level: _Level, params, x, z, strength, blank
) -> jax.Array:
  """The weighted sum of what the strongest unit of each channel sees."""
  values, places = _maxima(strength, search.skip_border)
  weights, channels = jax.lax.top_k(
    values, min(search.num_channels, z.shape[-1])
  )

  def add(total, rank):
    channel = channels[:, rank]
    place = jnp.take_along_axis(places, channel[:, None], 1)[:, 0]
    unit = jax.nn.one_hot(place * z.shape[-1] + channel, z[0].size)
    raised = level.response * unit.reshape(z.shape).astype(z.dtype)
    seen = jnp.sum(
      jnp.abs(search.back(function, params, raised, x) - blank),
      axis=-1,
      keepdims=True,
    )
    mask = seen > level.threshold * jnp.mean(seen, axis=(1, 2), keepdims=True)
    weight = weights[:, rank][:, None, None, None]
    return total + jnp.where(mask & (weight > 0), weight, 0), None

  start = jnp.zeros((*x.shape[:-1], 1), x.dtype)
  total, _ = loops.scan(add, start, jnp.arange(channels.shape[1]))
  return total / (jnp.max(total, axis=(1, 2, 3), keepdims=True) + _EPSILON)


def _maxima(z: jax.Array, skip_border: bool) -> tuple[jax.Array, jax.Array]:
  """(N, channels) largest value of each channel and its place, row by row."""
  _, height, width, channels = z.shape
  flat = z.reshape(len(z), height * width, channels)
  values, places = jnp.max(flat, axis=1), jnp.argmax(flat, axis=1)
  if not skip_border:
    return values, places
  row, column = places // width, places % width
  border = (
    (row == 0) | (row == height - 1) | (column == 0) | (column == width - 1)
  )
  return jnp.where(border, -jnp.inf, values), places
