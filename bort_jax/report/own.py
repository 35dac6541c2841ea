"""The explanations that B-cos networks have of themselves."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from bort_jax import nn
from bort_jax.attribution import AttributionError
from bort_jax.report.method import Method
from bort_jax.report.subject import Subject

_WINDOW = 15 / 224  # of a picture's side, over which ImageNet's are smoothed


def is_bcos(network: Any, weights: Any) -> bool:
  """Whether a network has B-cos layers."""
  layers = nn.bcos.BcosConv, nn.bcos.BcosDense
  modules = nnx.iter_modules(network.merge(*weights))
  return any(isinstance(module, layers) for _, module in modules)


def _explained(
  subject: Subject, weights: Any, x: jax.Array, target: jax.Array
) -> nn.bcos.Explanation:
  if not is_bcos(subject.logits.network, weights):
    raise AttributionError(
      'It is the explanation that a B-cos network has of itself, and this is'
      ' none.'
    )
  return nn.bcos.explain(subject.logits, weights, x, target)


def _contributions(subject, weights, x, target) -> jax.Array:
  found = _explained(subject, weights, x, target)
  return found.contribution_map[..., None].astype(x.dtype)


def _picture(subject, weights, x, target) -> jax.Array:
  found = _explained(subject, weights, x, target)
  side = int(_WINDOW * min(x.shape[1:3])) | 1
  return nn.bcos.explanation_picture(found.weights, found.encoded, smooth=side)


OWN = (
  Method(
    'bcos',
    'B-cos contributions',
    'signed',
    'What each pixel adds to the logit, exactly: the network is one linear map'
    ' of this picture.',
    _contributions,
  ),
  Method(
    'bcos_picture',
    'B-cos in colours',
    'colours',
    'The colours that the linear map of this picture asks for, opaque where it'
    ' is strong.',
    _picture,
  ),
)


def with_own(
  methods: Sequence[Method], network: Any, weights: Any
) -> list[Method]:
  """The methods, after a network's own explanations where it has any."""
  return [*(OWN if is_bcos(network, weights) else ()), *methods]
