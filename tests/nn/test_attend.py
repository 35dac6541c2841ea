"""Attention's averages, beside those of jax.nn."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bort_jax.nn.attend import attend

TOKENS, HEADS, WIDTH = 5, 2, 6


def arrays(dtype='float32') -> tuple[Any, Any]:
  keys = jax.random.split(jax.random.key(0), 4)
  shape = (3, TOKENS, HEADS * WIDTH)
  qkv = [jax.random.normal(key, shape, dtype) for key in keys[:3]]
  bias = jax.random.normal(keys[3], (1, HEADS, TOKENS, TOKENS), dtype)
  return qkv, bias


def of_jax(query, key, value, bias, mask):
  heads = (3, TOKENS, HEADS, WIDTH)
  qkv = [x.reshape(heads) for x in (query, key, value)]
  mixed = jax.nn.dot_product_attention(*qkv, bias=bias, mask=mask)
  return mixed.reshape(query.shape)


def test_values_and_gradients_are_those_of_jax():
  qkv, bias = arrays()
  mask = jnp.tril(jnp.ones((TOKENS, TOKENS), bool))[None, None]
  cases = (
    {'bias': bias, 'mask': None},
    {'bias': None, 'mask': mask},
    {'bias': bias, 'mask': mask},
  )
  for options in cases:
    ours = lambda *qkv, o=options: attend(*qkv, num_heads=HEADS, **o)
    theirs = lambda *qkv, o=options: of_jax(*qkv, **o)
    found, pull = jax.vjp(ours, *qkv)
    expected, pull_expected = jax.vjp(theirs, *qkv)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    cotangent = jnp.cos(expected)
    for one, other in zip(
      pull(cotangent), pull_expected(cotangent), strict=True
    ):
      np.testing.assert_allclose(one, other, atol=2e-6)


def test_the_softmax_is_as_wide_as_the_input_and_float32_at_least():
  with jax.enable_x64(True):
    qkv, _ = arrays('float64')
    query, key, value = (
      np.asarray(x).reshape(3, TOKENS, HEADS, WIDTH) for x in qkv
    )
    logits = np.einsum('nqhd,nkhd->nhqk', query, key) / np.sqrt(WIDTH)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.einsum('nhqk,nkhd->nqhd', weights, value)
    found = attend(*qkv, num_heads=HEADS)
    np.testing.assert_allclose(
      found, expected.reshape(found.shape), rtol=0, atol=1e-14
    )
  half: Any = [x.astype('bfloat16') for x in qkv]
  found = attend(*half, num_heads=HEADS)
  assert found.dtype == 'bfloat16'
  np.testing.assert_allclose(
    np.asarray(found, 'float64'), expected.reshape(found.shape), atol=0.03
  )


def test_halves_lose_no_more_than_by_jax_and_no_tokens_are_none():
  qkv, bias = arrays()
  half: Any = [x.astype('bfloat16') for x in qkv]
  exact = attend(
    *(x.astype('float32') for x in half), num_heads=HEADS, bias=bias
  )
  error = lambda y: float(jnp.abs(y.astype('float32') - exact).mean())
  ours, theirs = (
    attend(*half, num_heads=HEADS, bias=bias),
    of_jax(*half, bias=bias, mask=None),
  )
  assert error(ours) <= 1.2 * error(theirs)
  nothing = jnp.zeros((0, TOKENS, HEADS * WIDTH))
  assert attend(nothing, nothing, nothing, HEADS).shape == nothing.shape
