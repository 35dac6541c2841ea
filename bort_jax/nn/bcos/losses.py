"""Binary cross-entropy with targets that are never off."""

import jax
import jax.numpy as jnp
import optax


def uniform_off_bce(
  logits: jax.Array, labels: jax.Array, off_label: float | None = None
) -> jax.Array:
  """Binary cross-entropy, every target at least ``off_label``.

  Args:
    logits: (N, K), floats.
    labels: (N,) int classes, or (N, K) targets in 0 … 1.
    off_label: the least target, in 0 … 1; None for 1/K. 0 gives the plain
      binary cross-entropy.

  Returns:
    The mean over samples and classes, a scalar.

  Raises:
    ValueError: if the shapes do not fit or ``off_label`` is outside [0, 1].

  Examples:
    >>> import jax.numpy as jnp
    >>> from bort_jax.nn.bcos import uniform_off_bce
    >>> loss = uniform_off_bce(jnp.zeros((2, 10)), jnp.array([3, 7]))
    >>> round(float(loss), 4)
    0.6931

  References:
    Böhle, Singh, Fritz, Schiele, `B-cos Alignment for Inherently Interpretable
    CNNs and Vision Transformers <https://arxiv.org/abs/2306.10898>`_, 2023
  """
  if logits.ndim != 2 or labels.shape not in (logits.shape, logits.shape[:1]):
    raise ValueError(
      f'Logits must be (N, K) and labels (N,) or (N, K), got {logits.shape} and'
      f' {labels.shape}.'
    )
  classes = logits.shape[1]
  off = 1 / classes if off_label is None else off_label
  if not 0 <= off <= 1:
    raise ValueError(f'off_label must be in [0, 1], got {off_label!r}.')
  if labels.ndim == 1:
    labels = jax.nn.one_hot(labels, classes, dtype=logits.dtype)
  targets = jnp.maximum(labels.astype(logits.dtype), off)
  return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets))
