"""A network of ``apply_fn(params, x)`` as Quantus wants one."""

import contextlib
import importlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np
import scipy.special

# by name, so that types are checked alike where it is not installed
quantus: Any = importlib.import_module('quantus')
_interface: Any = importlib.import_module(
  'quantus.helpers.model.model_interface'
)
CHANNELS_FIRST = (0, 3, 1, 2)
CHANNELS_LAST = (0, 2, 3, 1)


class Adapter(_interface.ModelInterface):
  """Predicts, and hands out parameters of which layers forgot.

  What Quantus calls a model is the tree of parameters here, for functions that
  explain: they know the rest.
  """

  def __init__(
    self,
    apply_fn: Callable[[Any, Any], Any],
    params: Any,
    softmax: bool,
    forgetful: dict[str, Any] | None = None,
  ):
    super().__init__(model=params, channel_first=True, softmax=softmax)
    self.apply_fn = apply_fn
    self.forgetful = forgetful or {}

  def predict(self, x: np.ndarray, **_: Any) -> np.ndarray:
    """Logits or probabilities of pictures (N, C, H, W)."""
    pictures = jnp.asarray(np.asarray(x).transpose(CHANNELS_LAST))
    logits = np.asarray(self.apply_fn(self.model, pictures), np.float64)
    return scipy.special.softmax(logits, -1) if self.softmax else logits

  def shape_input(self, x, shape, channel_first=None, batched=False):
    """A batch as it is."""
    return x if batched else x.reshape(1, *shape)

  def get_model(self) -> Any:
    """The parameters."""
    return self.model

  def state_dict(self) -> Any:
    """The parameters."""
    return self.model

  def get_softmax_arg_model(self) -> 'Adapter':
    """Itself."""
    return self

  def get_random_layer_generator(self, order='top_down', seed=42):
    """Names of layers, and parameters of which they forgot."""
    yield from self.forgetful.items()

  @property
  def random_layer_generator_length(self) -> int:
    """How many there are."""
    return len(self.forgetful)

  def add_mean_shift_to_first_layer(self, input_shift, shape):
    """Not for a function of any kind."""
    raise NotImplementedError

  def get_hidden_representations(self, x, layer_names=None, layer_indices=None):
    """Not for a function of any kind."""
    raise NotImplementedError


@contextlib.contextmanager
def taken_as_they_are():
  """Lets Quantus take adapters as networks, and NumPy 2 as NumPy."""
  numpy = mock.patch.object(np, 'trapz', np.trapezoid, create=True)
  wrapped = lambda model, **_: model
  utils = quantus.helpers.utils
  with numpy, mock.patch.object(utils, 'get_wrapped_model', wrapped):
    yield
