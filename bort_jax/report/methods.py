"""The methods that a report shows, as a reader knows them."""

import difflib
import math
from collections.abc import Callable
from typing import Any

import jax

from bort_jax import attribution, inversion
from bort_jax.attribution import AttributionError
from bort_jax.report.method import Method
from bort_jax.report.own import OWN
from bort_jax.train.errors import RunError

_MASKS_PER_CELL = 20  # of RISE: 1280 for its grid of 8 × 8


def choose_methods(names: tuple[str, ...]) -> list[Method]:
  """Methods by their names; all that explain any network if none are named.

  Raises:
    RunError: for a name that is not that of a method.

  Examples:
    >>> from bort_jax.report.methods import choose_methods
    >>> [method.label for method in choose_methods(('lrp', 'grad_cam'))]
    ['LRP-ε', 'Grad-CAM']
  """
  known = {method.name: method for method in (*METHODS, *OWN)}
  unknown = [name for name in names if name not in known]
  if unknown:
    near = difflib.get_close_matches(unknown[0], known, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise RunError(
      f'There is no method {", ".join(map(repr, unknown))}; there are'
      f' {", ".join(known)}.{hint}'
    )
  return [known[name] for name in names] if names else list(METHODS)


def _of_logits(method: Callable[..., jax.Array], **options: Any):
  return lambda subject, weights, x, target: method(
    subject.logits, weights, x, target, **options
  )


def _in_chunks(method: Callable[..., jax.Array], **options: Any):
  return lambda subject, weights, x, target: method(
    subject.logits, weights, x, target, chunk=subject.chunk, **options
  )


def _of_layer(method: Callable[..., jax.Array], **options: Any):
  def explain(subject, weights, x, target):
    layer = subject.feature_map
    if layer is None:
      raise AttributionError(
        'It needs a feature map (N, h, w, channels), and this network names'
        ' none.'
      )
    return method(subject.outputs, weights, x, target, layer=layer, **options)

  return explain


def _backtrack(subject, weights, x, target):
  method = _of_logits(inversion.backtrack, **subject.effort)
  return method(subject, weights, x, target)


def _class_saliency(subject, weights, x, target):
  method = _of_layer(
    inversion.class_saliency, skip_border=False, **subject.effort
  )
  return method(subject, weights, x, target)


def _smooth_grad(subject, weights, x, target):
  # a key made on import would start JAX before several processes can connect
  method = _in_chunks(attribution.smooth_grad, key=jax.random.key(0))
  return method(subject, weights, x, target)


def _expected_gradients(subject, weights, x, target):
  method = _in_chunks(
    attribution.expected_gradients,
    key=jax.random.key(1),
    background=subject.background,
  )
  return method(subject, weights, x, target)


def _occlusion(subject, weights, x, target):
  window = max(2, math.ceil(min(x.shape[1:3]) / 8))
  method = _in_chunks(attribution.occlusion, window=window, stride=window // 2)
  return method(subject, weights, x, target)


def _rise(subject, weights, x, target):
  cells = min(8, max(2, min(x.shape[1:3]) // 2))
  masks = _MASKS_PER_CELL * cells**2
  method = _in_chunks(
    attribution.rise, key=jax.random.key(2), masks=masks, cells=cells
  )
  return method(subject, weights, x, target)


METHODS = (
  Method(
    'gradient',
    'Gradient',
    'signed',
    'How the logit of the class changes with each pixel.',
    _in_chunks(attribution.gradient),
  ),
  Method(
    'gradient_times_input',
    'Gradient × input',
    'signed',
    'The gradient times the picture: what each pixel adds, to first order.',
    _in_chunks(attribution.gradient_times_input),
  ),
  Method(
    'smooth_grad',
    'SmoothGrad',
    'signed',
    'The mean gradient over 32 noisy copies of the picture.',
    _smooth_grad,
  ),
  Method(
    'integrated_gradients',
    'Integrated gradients',
    'signed',
    'Gradients along the way from black to the picture, times the picture;'
    ' they add up to the change of the logit.',
    _in_chunks(attribution.integrated_gradients),
  ),
  Method(
    'expected_gradients',
    'Expected gradients',
    'signed',
    'Integrated gradients from many other pictures instead of black.',
    _expected_gradients,
  ),
  Method(
    'guided_backprop',
    'Guided backprop',
    'signed',
    'The gradient where only positive parts pass each activation, both ways.'
    ' It looks sharp whatever the network has learned.',
    _in_chunks(attribution.guided_backprop),
  ),
  Method(
    'deconvnet',
    'Deconvnet',
    'signed',
    'The gradient where only its positive parts pass each activation.',
    _in_chunks(attribution.deconvnet),
  ),
  Method(
    'grad_cam',
    'Grad-CAM',
    'absolute',
    'The last feature map, weighted by the mean gradient of each channel.',
    _of_layer(attribution.grad_cam),
  ),
  Method(
    'grad_cam_plus_plus',
    'Grad-CAM++',
    'absolute',
    'Grad-CAM with weights that do not fade where a class is seen twice.',
    _of_layer(attribution.grad_cam_plus_plus),
  ),
  Method(
    'lrp',
    'LRP-ε',
    'signed',
    'The logit, handed back from layer to layer in proportion to what each'
    ' unit gave.',
    _in_chunks(attribution.lrp, rule='epsilon'),
  ),
  Method(
    'lrp_z_plus',
    'LRP-z⁺',
    'absolute',
    'The same, along positive contributions alone.',
    _in_chunks(attribution.lrp, rule='z_plus'),
  ),
  Method(
    'occlusion',
    'Occlusion',
    'signed',
    'How much the logit falls when a window is blacked out.',
    _occlusion,
  ),
  Method(
    'rise',
    'RISE',
    'absolute',
    'The mean of random masks, weighted by the probability that they leave to'
    ' the class.',
    _rise,
  ),
  Method(
    'backtrack',
    'Backtracking',
    'signed',
    'The logit of the class, run backwards to the picture by the inverse of'
    ' each layer.',
    _backtrack,
    in_turn=True,
    backwards='logits',
  ),
  Method(
    'class_saliency',
    'Saliency by inversion',
    'absolute',
    'What the units of the last feature map that speak for the class see when'
    ' they are run backwards.',
    _class_saliency,
    backwards='feature_map',
  ),
)
