"""What cannot be run backwards is refused, with its reason and a way out."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bort_jax import inversion

InversionError = inversion.InversionError
X = jax.random.normal(jax.random.key(0), (2, 4))
W = jax.nn.initializers.orthogonal()(jax.random.key(1), (4, 4))


def dense(params, x):
  return jax.nn.leaky_relu(x @ params)


def bessel(params, x):
  return jax.lax.bessel_i1e(x @ params)  # has no rule


BESSEL = f'test_inversion_errors.py:{bessel.__code__.co_firstlineno + 1}'


def refused(apply_fn, *words, params: Any = W, x=X, **options):
  with pytest.raises(InversionError) as error:
    inversion.reconstruct(apply_fn, params, x, **options)
  for word in words:
    assert word in str(error.value)


def test_a_function_that_does_not_depend_on_x():
  refused(lambda params, x: params @ params, 'does not depend on x')


def test_several_outputs():
  refused(lambda params, x: (x, x), 'one array', 'until')


def test_an_unknown_operation_is_named_with_its_place():
  refused(bessel, "'bessel_i1e'", BESSEL, 'rules={')


def test_an_operation_becomes_known_by_a_rule():
  x = 0.1 * X  # where it is close to x / 2

  def rule(y, like):
    assert like.shape == y.shape
    return jax.lax.fori_loop(
      0, 50, lambda _, v: v + 2 * (y - jax.lax.bessel_i1e(v)), y
    )

  result = inversion.reconstruct(bessel, W, x, rules={'bessel_i1e': rule})
  np.testing.assert_allclose(result.x, x, atol=1e-5)


def test_a_rule_that_returns_another_shape():
  rules = {'bessel_i1e': lambda y, like: y[0]}
  refused(bessel, 'bessel_i1e', '(4,)', '(2, 4)', rules=rules)


@pytest.mark.parametrize(
  'apply_fn',
  [
    lambda p, x: jax.lax.while_loop(lambda s: s.sum() < 9, lambda s: 2 * s, x),
    lambda p, x: x[jnp.argmax(x[:, 0])][None],
  ],
  ids=['while', 'argmax'],
)
def test_loops_and_choices_of_unknown_outcome(apply_fn, request):
  refused(apply_fn, repr(request.node.callspec.id), 'test_inversion_errors.py:')


@pytest.mark.parametrize('shape', [(2, 7), (3, 4), (4,)])
def test_outputs_of_the_wrong_shape(shape):
  with pytest.raises(InversionError, match=r'\(2, 4\)') as error:
    inversion.invert(dense, W, jnp.ones(shape), X)
  assert str(shape) in str(error.value)


def test_outputs_of_another_type_are_converted():
  z: Any = np.asarray(dense(W, X), 'float64')
  np.testing.assert_allclose(inversion.invert(dense, W, z, X).x, X, atol=1e-5)
  z = np.ones((2, 4), int)
  whole = inversion.invert(dense, W, z, X).x
  assert whole.dtype == X.dtype


def test_x_of_another_shape_than_like():
  with pytest.raises(InversionError, match='like'):
    inversion.invert(dense, W, dense(W, X), X, x=X[:1])


def test_one_number_for_all_is_undone():
  result = inversion.reconstruct(lambda p, x: jnp.sum(x @ p), W, X)
  assert result.residual.shape == ()
  assert float(result.residual) < 1e-5


def test_weights_that_are_not_finite_are_named():
  params = {'good': W, 'bad': W.at[1, 2].set(jnp.nan)}
  apply_fn = lambda p, x: dense(p['bad'], dense(p['good'], x))
  refused(apply_fn, 'not finite', 'params/bad', params=params)
  with pytest.raises(InversionError, match='finite in z'):
    inversion.invert(dense, W, jnp.full((2, 4), jnp.inf), X)


def test_what_becomes_infinite_is_traced_to_its_segment():
  rules = {'bessel_i1e': lambda y, like: y * jnp.nan}
  refused(bessel, 'not finite from segment 1', BESSEL, rules=rules)


def folded(params, x):
  return x + jax.nn.relu(-2 * x @ params)  # |x|


def test_a_residual_block_that_does_not_contract_and_is_not_solved():
  with pytest.raises(InversionError, match='stretches by') as error:
    inversion.invert(folded, jnp.eye(4), -jnp.ones((2, 4)), X)
  place = folded.__code__.co_firstlineno + 1
  for word in (
    f'test_inversion_errors.py:{place}',
    'by 2',
    'smaller amplitude',
    'until',
  ):
    assert word in str(error.value)


def test_integers_are_refused():
  refused(dense, 'floats', 'int32', x=jnp.ones((2, 4), int))


def test_pooling_without_x():
  pool = lambda p, x: jnp.max(x @ p, axis=1)
  with pytest.raises(
    InversionError, match='reduce_max .test_inversion_errors.py.*x=x'
  ):
    inversion.invert(pool, W, pool(W, X), X)


def test_unknown_layers():
  outputs = lambda p, x: {'conv1': x, 'pool': 2 * x}
  refused(inversion.until(outputs, 'cnv1'), 'conv1, pool', "mean 'conv1'")
  refused(inversion.until(dense, 'conv1'), 'intermediates')
  refused(inversion.until(dense, 2), 'no segment 2', 'from 0 to 1')
  refused(inversion.until(dense, -1), 'no segment -1')


class Module(eqx.Module):
  weight: jax.Array

  def __call__(self, params, x):
    return x @ self.weight


@dataclasses.dataclass
class Callable:
  def __call__(self, params, x):
    return x @ params


@pytest.mark.parametrize('apply_fn', [Module(W), Callable()])
def test_functions_without_a_hash(apply_fn):
  refused(apply_fn, type(apply_fn).__name__, 'hash', 'params')


def test_unknown_methods():
  refused(dense, 'auto, least_squares', "'inverse'", method='inverse')
