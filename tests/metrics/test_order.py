"""Numbers in order, beside NumPy's sort."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from bort_jax.metrics.order import ascending, in_order, kth_least, least

KEY = jax.random.key(5)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float32', 'float64'])
def test_words_are_in_the_order_of_floats(dtype, float64):
  info = jnp.finfo(dtype)
  edges = [0, info.tiny, 1, 2, info.max, np.inf]
  values = jnp.array([s * v for s in (-1, 1) for v in edges], dtype)
  words = np.asarray(in_order(values))
  values = np.asarray(values, np.float64)
  assert words.dtype.itemsize * 8 == info.bits
  np.testing.assert_array_equal(
    words[:, None] < words, values[:, None] < values
  )
  np.testing.assert_array_equal(
    words[:, None] == words, values[:, None] == values
  )


@pytest.mark.parametrize(
  ('dtype', 'most'), [('uint32', 3), ('uint32', 2**32), ('uint64', 2**64)]
)
def test_the_kth_is_that_of_a_sort(dtype, most, float64):
  rng = np.random.default_rng(0)
  words = rng.integers(0, most, (6, 40), dtype)
  k = np.array([1, 2, 7, 20, 39, 40])
  expected = np.sort(words, axis=1)[np.arange(6), k - 1]
  found = kth_least(jnp.asarray(words), jnp.asarray(k))
  np.testing.assert_array_equal(found, expected)
  each = jax.vmap(lambda row, k: kth_least(row[None], k[None])[0])
  np.testing.assert_array_equal(each(words, jnp.asarray(k)), expected)


@pytest.mark.parametrize(
  ('platform', 'found', 'missing'),
  [('cpu', 'while', 'sort'), ('cuda', 'sort', 'while')],
)
def test_only_cpus_count_instead_of_sorting(platform, found, missing):
  words, k = jnp.zeros((2, 9), jnp.uint32), jnp.ones(2, int)
  traced = jax.jit(lambda *args: kth_least(*args)).trace(words, k)
  program = traced.lower(lowering_platforms=(platform,)).as_text()
  assert f'stablehlo.{found}' in program
  assert f'stablehlo.{missing}' not in program


@pytest.mark.parametrize('size', [1, 2, 5, 16, 33])
@pytest.mark.parametrize('most', [1, 3, 2**32])
def test_so_many_are_least_whatever_is_equal(size, most):
  rng = np.random.default_rng(size)
  words = rng.integers(0, most, (20, size), np.uint32)
  for count in {1, -(-size // 3), size}:
    chosen = np.asarray(least(jnp.asarray(words), count))
    assert (chosen.sum(axis=1) == count).all()
    expected = np.sort(words, axis=1)[:, :count]
    found = np.sort(words[chosen].reshape(20, count), axis=1)
    np.testing.assert_array_equal(found, expected)


def test_every_subset_is_as_likely():
  words = jax.random.bits(KEY, (20_000, 5))
  chosen = np.asarray(least(words, 2))
  _, counts = np.unique(chosen, axis=0, return_counts=True)
  assert len(counts) == 10
  assert scipy.stats.chisquare(counts).pvalue > 0.01


def test_of_two_equal_words_each_is_as_likely():
  words = jax.random.bits(KEY, (4000, 1))
  for pair in ((0, 1), (1, 4), (2, 5), (3, 5)):
    others = jnp.full((4000, 6), 2**32 - 1, jnp.uint32)
    tied = others.at[:, jnp.array(pair)].set(words)
    first = int(np.asarray(least(tied, 1))[:, pair[0]].sum())
    assert scipy.stats.binomtest(first, 4000).pvalue > 0.001


def test_sorting_has_the_derivatives_of_a_sort(float64):
  values = jax.random.uniform(KEY, (2, 7))
  weights = jnp.arange(14.0).reshape(2, 7)
  of = lambda sort: jax.grad(lambda v: jnp.sum(weights * sort(v) ** 2))(values)
  expected = of(functools.partial(jnp.sort, axis=1))
  np.testing.assert_allclose(of(ascending), expected, rtol=1e-12)
