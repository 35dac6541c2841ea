"""A Flax network as the pure functions that training needs."""

import ast
import difflib
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from bort_jax import nn
from bort_jax.train.config import TrainConfig
from bort_jax.train.errors import RunError


class Network(NamedTuple):
  """What a network computes; parameters and statistics are arguments.

  ``stats`` is what a network holds beside parameters: running statistics.
  """

  init: Callable[[], tuple[Any, Any]]  # () -> params, stats
  train: Callable[..., Any]  # params, stats, x, key -> logits, stats
  apply: Callable[..., jax.Array]  # params, stats, x -> logits
  merge: Callable[..., nnx.Module]  # params, stats -> the module, evaluating
  train_pairs: Callable[..., Any]  # as train, of pairs that are neighbours in
  # the batch and draw one dropout, with all named outputs for logits


def make_network(make_model: Callable[[], nnx.Module]) -> Network:
  """Splits what a function makes into pure functions.

  Args:
    make_model: makes the module, with weights from keys of its own.

  Returns:
    The network. ``init`` makes the weights anew, the same every time; ``train``
    draws dropout and stochastic depth from its key.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax.train.network import make_network
    >>> network = make_network(lambda: nnx.BatchNorm(2, rngs=nnx.Rngs(0)))
    >>> params, stats = network.init()
    >>> x = jnp.array([[0.0, 1.0], [2.0, 3.0]])
    >>> y, stats = network.train(params, stats, x, jax.random.key(0))
    >>> [round(float(m), 3) for m in stats['mean'][...]]
    [0.01, 0.02]
  """
  model = nnx.eval_shape(make_model)
  model.train()
  training, randomness, _, _ = nnx.split(model, nnx.RngState, nnx.Param, ...)
  model.eval()
  evaluating, _, _, _ = nnx.split(model, nnx.RngState, nnx.Param, ...)
  model.train()
  _drop_in_pairs(model)
  pairing, _, _, _ = nnx.split(model, nnx.RngState, nnx.Param, ...)

  def init():
    _, _, params, stats = nnx.split(make_model(), nnx.RngState, nnx.Param, ...)
    return params, stats

  def run(graph, call, params, stats, x, key):
    drawn = _seeded(randomness, key)
    # copy: the module is changed inside a function that is differentiated
    module = nnx.merge(graph, drawn, params, stats, copy=True)
    out = call(module, x)
    _, _, _, stats = nnx.split(module, nnx.RngState, nnx.Param, ...)
    return out, stats

  train = functools.partial(run, training, _call)
  train_pairs = functools.partial(run, pairing, _call_named)

  def merge(params, stats):
    drawn = _seeded(randomness, jax.random.key(0))  # not used, but must be
    return nnx.merge(evaluating, drawn, params, stats, copy=True)

  def apply(params, stats, x):
    return _call(merge(params, stats), x)

  return Network(jax.jit(init), train, apply, merge, train_pairs)


def make_model(
  config: TrainConfig,
  image_shape: Sequence[int],
  num_classes: int,
  axis_name: str | None = None,
) -> nnx.Module:
  """The network of a run at its start, the same for the same seed.

  Args:
    config: the settings.
    image_shape: (height, width, channels) of the pictures.
    num_classes: number of classes.
    axis_name: of a pmap, over which batch statistics are averaged.

  Returns:
    The network.

  Raises:
    RunError: if there is no such network or option, or it does not fit.
  """
  options: dict[str, Any] = {'logit_scale': config.logit_scale}
  if config.model == 'simple_cnn' and min(image_shape[:2]) < 16:
    options['kernel_sizes'] = (3, 3, 3)
  if config.init == 'orthogonal':
    gain = math.sqrt(config.amplitude)
    options['kernel_init'] = nnx.initializers.orthogonal(gain)
  elif config.init == 'lecun':
    options['kernel_init'] = nnx.initializers.lecun_normal()
  if config.precision == 'bfloat16':
    options['dtype'] = jnp.bfloat16
  try:
    network = nn.network_class(config.model)
    accepted = _options_of(network)
    if 'axis_name' in accepted and axis_name is not None:
      options['axis_name'] = axis_name
    options |= _parse_options(config, accepted)
    model = nn.create(
      config.model,
      image_shape=image_shape,
      num_classes=num_classes,
      rngs=nnx.Rngs(config.seed, dropout=0),  # weights as without dropout
      **options,
    )
  except (TypeError, ValueError) as error:
    given = ' '.join(config.model_options)
    given = f' with {given}' if given else ''
    raise RunError(f'Network {config.model!r}{given}: {error}') from None
  if config.optimizer == 'sgd':
    _slow_logit_scales(model)
  return model


def _slow_logit_scales(model: nnx.Module) -> None:
  """Learning-rate multiplier 1: SGD needs none, and 30² would overshoot."""
  for _, module in nnx.iter_modules(model):
    if isinstance(module, nn.LogitScale):
      module.multiplier = 1.0


def _options_of(network: Callable[..., nnx.Module]) -> list[str]:
  while isinstance(network, functools.partial):
    network = network.func
  names = []
  for name, p in inspect.signature(network.__init__).parameters.items():
    if p.kind is p.KEYWORD_ONLY:
      names.append(name)
    elif p.kind is p.VAR_KEYWORD:  # Unpack[a TypedDict]
      for settings in get_args(p.annotation):
        names += list(settings.__annotations__)
  return names


def _parse_options(config: TrainConfig, accepted) -> dict[str, Any]:
  options = {}
  for text in config.model_options:
    name, equals, value = text.partition('=')
    if not equals:
      raise ValueError(f'model_options are NAME=VALUE, got {text!r}.')
    if name not in accepted:
      near = difflib.get_close_matches(name, accepted, n=1)
      hint = f' Did you mean {near[0]!r}?' if near else ''
      raise ValueError(
        f'there is no option {name!r}; there are {", ".join(accepted)}.{hint}'
      )
    try:
      options[name] = ast.literal_eval(value)
    except (SyntaxError, ValueError):
      options[name] = value  # a plain word
  return options


def _call(module: nnx.Module, x: jax.Array) -> jax.Array:
  return module(x)  # pyright: ignore[reportCallIssue]


def _call_named(module: nnx.Module, x: jax.Array) -> dict[str, jax.Array]:
  return module.intermediates(x)  # pyright: ignore[reportAttributeAccessIssue]


class _PairedDropout(nnx.Dropout):
  """Drops the same of both in each pair of neighbours."""

  def __call__(self, inputs, *args, **kwargs):
    """As Dropout, of pairs (2N, ...)."""
    kept = super().__call__(jnp.ones_like(inputs[::2]), *args, **kwargs)
    return inputs * jnp.repeat(kept, 2, axis=0)


def _drop_in_pairs(model: nnx.Module) -> None:
  for _, module in nnx.iter_modules(model):
    if type(module) is nnx.Dropout:
      # past the module's own bookkeeping, which would count it as an attribute
      object.__setattr__(module, '__class__', _PairedDropout)


def _seeded(randomness: Any, key: jax.Array) -> Any:
  """Random state that depends on the key alone."""
  leaves, structure = jax.tree.flatten(randomness)

  def seed(i, leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return jax.random.fold_in(key, i)
    return jnp.zeros(leaf.shape, leaf.dtype)

  return jax.tree.unflatten(
    structure, [seed(i, leaf) for i, leaf in enumerate(leaves)]
  )
