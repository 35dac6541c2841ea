"""The activations of the networks that can be run backwards."""

from typing import Literal, TypeAlias

Activation: TypeAlias = Literal['leaky_relu', 'relu']


def slope_below_zero(activation: Activation, negative_slope: float) -> float:
  """The slope of a leaky ReLU that is the named activation.

  Args:
    activation: ``'leaky_relu'`` or ``'relu'``.
    negative_slope: slope of the leaky ReLU below zero; ReLU has none.

  Returns:
    ``negative_slope``, or 0 for ReLU.

  Raises:
    ValueError: if the activation is another one.

  Examples:
    >>> from bort_jax.nn.activations import slope_below_zero
    >>> slope_below_zero('leaky_relu', 0.5), slope_below_zero('relu', 0.5)
    (0.5, 0.0)
  """
  if activation not in ('leaky_relu', 'relu'):
    raise ValueError(
      f"activation must be 'leaky_relu' or 'relu', got {activation!r}."
    )
  return 0.0 if activation == 'relu' else negative_slope
