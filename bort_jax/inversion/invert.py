"""From outputs back to inputs, with an account of every segment."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.core import Tracer

from bort_jax import validation
from bort_jax.inversion.errors import InversionError
from bort_jax.inversion.iterations import Newton
from bort_jax.inversion.operations import aval_of
from bort_jax.inversion.program import Program, evaluate, trace
from bort_jax.inversion.report import Segment, relative_norms, segment_of
from bort_jax.inversion.segments import cut
from bort_jax.inversion.undo import (
  Method,
  Rule,
  Setting,
  default_tolerance,
  run_back,
)
from bort_jax.norms import greatest

_NOTHING_BACK = 0.1  # residual of a block that counts as not undone


class Inversion(NamedTuple):
  """What went in, as far as what came out can tell."""

  x: jax.Array  # like the input
  residual: jax.Array  # (N,) ‖f(x) − z‖ / ‖z‖ of each of the batch
  steps: jax.Array  # () int, of all iterations together
  segments: tuple[Segment, ...]  # in the order of the forward pass


def invert(
  apply_fn: Callable[[Any, jax.Array], jax.Array],
  params: Any,
  z: jax.Array,
  like: jax.ShapeDtypeStruct | jax.Array,
  *,
  method: Method = 'auto',
  x: jax.Array | None = None,
  rules: Mapping[str, Rule] | None = None,
  tolerance: float | None = None,
  max_steps: int = 100,
  newton_steps: int | None = None,
  linear_steps: int = 500,
) -> Inversion:
  """Runs a function backwards: finds x with ``apply_fn(params, x) = z``.

  The function is read as its operations, cut at its bottlenecks, and each
  segment is undone by itself, from last to first. It may come from any
  framework. Everything jits and vmaps; one function is compiled once per shape.

  The input differentiates by params and z, forward and reverse: solutions of
  least squares as pseudoinverses do, others by the implicit function theorem,
  and what a ReLU or a maximum lost stays as it is. What the segments report is
  not to be differentiated in reverse.

  Args:
    apply_fn: the function; it must return one array of floats.
    params: its parameters.
    z: what came out.
    like: the input, or its shape and dtype (``jax.ShapeDtypeStruct``).
    method: how affine segments are undone. ``'published'``: layer by layer,
      bias off, each output over the squared norm of its kernel, transposed,
      averaged where patches overlap; ReLU passes through (of other functions
      that are not one-to-one the published code knows nothing: they are undone
      as by ``'auto'``). ``'transpose'``: the same with Wᵀ/a, right for tall
      orthogonal kernels too. ``'least_squares'``: the least-norm least-squares
      preimage of the whole segment by LSMR, from the known outputs alone where
      a ReLU follows.
      ``'auto'``: the transpose where that solves to tolerance, else least
      squares.
    x: the input that z came from, if there is one: maxima are undone where they
      were, and each segment's loss is measured. Its values are not used
      otherwise.
    rules: for operations that nothing is known of, by their name: functions
      ``rule(y, like, *constants, **options)`` that return what went in.
    tolerance: where iterations stop; by default a few roundings. Of a fixed
      point it is the relative residual. Least squares (LSMR) also stop where
      the residual of the normal equations is as small, relative to the norms of
      residual and matrix: the relative residual itself can then be larger, more
      so for larger condition numbers. What was reached is in the result.
    max_steps: most iterations in a segment.
    newton_steps: most of them that may be Gauss–Newton's, where a segment is
      neither affine nor undone by fixed point; by default ``max_steps``. The
      dearest by far: each solves a linear problem.
    linear_steps: most iterations of such a linear problem. An inversion
      takes up to newton_steps × linear_steps passes there and back.

  Returns:
    The input and how well each segment was undone.

  Raises:
    InversionError: for a function, value or setting that cannot be inverted.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from bort_jax import inversion
    >>> apply_fn = lambda params, x: jax.nn.leaky_relu(x @ params)
    >>> params = jax.nn.initializers.orthogonal()(jax.random.key(0), (3, 5))
    >>> x = jnp.array([[1.0, -2.0, 0.5]])
    >>> found = inversion.invert(apply_fn, params, apply_fn(params, x), x)
    >>> bool(jnp.allclose(found.x, x, atol=1e-5))
    True
    >>> [segment.kind for segment in found.segments]
    ['affine', 'elementwise']
  """
  like = jax.ShapeDtypeStruct(jnp.shape(like), like.dtype)
  check_hashable(apply_fn)
  _check(method, z, like, x, params)
  if tolerance is None:
    tolerance = default_tolerance(like.dtype)
  newton = newton_of(max_steps, newton_steps, linear_steps)
  options = _Options(
    method, tuple((rules or {}).items()), tolerance, max_steps, newton
  )
  result = _invert(apply_fn, options, like, params, z, x)
  _refuse_failures(result, params, z)
  return result


def reconstruct(
  apply_fn: Callable[[Any, jax.Array], jax.Array],
  params: Any,
  x: jax.Array,
  **options: Any,
) -> Inversion:
  """Runs pictures forward, and what comes out back.

  Args:
    apply_fn: the function.
    params: its parameters.
    x: pictures (N, H, W, C), or whatever the function takes.
    **options: those of :func:`invert`.

  Returns:
    The reconstruction.

  Raises:
    InversionError: for a function, value or setting that cannot be inverted.

  Examples:
    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bort_jax import inversion, nn
    >>> model = nn.create(
    ...   'patch_net', image_shape=(8, 8, 1), num_classes=10, rngs=nnx.Rngs(0)
    ... )
    >>> apply_fn, params = nn.functional(model, 'intermediates')
    >>> x = jnp.linspace(0, 1, 64).reshape(1, 8, 8, 1)
    >>> features = inversion.until(apply_fn, 'features')
    >>> result = inversion.reconstruct(features, params, x)
    >>> bool(jnp.allclose(result.x, x, atol=1e-5))
    True
  """
  z = forward(apply_fn, params, x)
  return invert(apply_fn, params, z, x, x=x, **options)


def forward(
  apply_fn: Callable[[Any, jax.Array], jax.Array], params: Any, x: jax.Array
) -> jax.Array:
  """What a function makes of x, as finely as it is run backwards."""
  check_hashable(getattr(apply_fn, 'apply_fn', apply_fn))
  with jax.default_matmul_precision('highest'):
    return _forward(apply_fn, params, x)


@functools.partial(jax.jit, static_argnums=0)
def _forward(apply_fn, params, x):
  return apply_fn(params, x)


class _Options(NamedTuple):
  method: Method
  rules: tuple[tuple[str, Rule], ...]
  tolerance: float
  max_steps: int
  newton: Newton


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _invert(apply_fn, options: _Options, like, params, z, x) -> Inversion:
  with jax.default_matmul_precision('highest'):
    rules = dict(options.rules)
    program = trace(apply_fn, params, like)
    z = _like_output(z, program)
    pieces = cut(program, frozenset(rules))
    constants = program.constants(params)
    recorded = None
    if x is not None:
      recorded = evaluate(program.eqns, {**constants, program.invar: x})
    setting = Setting(
      program,
      options.method,
      constants,
      recorded,
      options.tolerance,
      options.max_steps,
      options.newton,
      rules,
    )
    undone = run_back(pieces, setting, z)
    values = [*(u.x for u in undone), z]
    known = [*(u.known for u in undone), None]
    segments = tuple(
      segment_of(i, piece, setting, undone[i], values[i + 1], known[i + 1])
      for i, piece in enumerate(pieces)
    )
    residual = relative_norms(apply_fn(params, values[0]) - z, z)
  steps = jnp.sum(jnp.array([s.steps for s in segments], jnp.int32))
  return Inversion(values[0], residual, steps, segments)


def _refuse_failures(result: Inversion, params: Any, z: jax.Array) -> None:
  """Says where nothing comes back and why, when the numbers are known."""
  if isinstance(result.x, Tracer):
    return
  for segment in reversed(result.segments):  # in the order they were undone
    residual = float(greatest(segment.residual))
    if float(segment.contraction) >= 1 and not residual <= _NOTHING_BACK:
      raise InversionError(
        f'The residual block at {segment.source} (segment {segment.index})'
        f' cannot be undone: its branch stretches by {segment.contraction:.2g}'
        ' or more, and steps backwards converge for less than 1 alone;'
        f' Gauss–Newton left a residual of {residual:.2g} after'
        f' {int(segment.newton_steps)} steps. Scale the branch down, train with'
        ' a smaller amplitude, allow more newton_steps, or stop before it with'
        ' inversion.until.'
      )
  if not _nonfinite(result[:2]):
    return
  refuse_nonfinite({'params': params, 'z': z})
  bad = [s for s in result.segments if not jnp.all(jnp.isfinite(s.residual))]
  where = f'segment {bad[-1].index} ({bad[-1].source})' if bad else 'the end'
  raise InversionError(f'What comes back is not finite from {where} on.')


def refuse_nonfinite(given: Any) -> None:
  """Names the arrays that have numbers that are not finite, when known."""
  bad = _nonfinite(given)
  if bad:
    raise InversionError(
      f'Numbers are not finite in {", ".join(bad)}, and so not in what comes'
      ' of it.'
    )


@jax.ensure_compile_time_eval()  # what is known is read under jit too
def _nonfinite(given: Any) -> list[str]:
  """The names of the arrays that have numbers that are not finite."""
  known = [
    (jax.tree_util.keystr(path, simple=True, separator='/'), a)
    for path, a in jax.tree_util.tree_leaves_with_path(given)
    if not isinstance(a, Tracer)
  ]
  # all are asked before the first is waited for
  finite = jax.device_get([jnp.all(jnp.isfinite(a)) for _, a in known])
  return [name for (name, _), ok in zip(known, finite, strict=True) if not ok]


def _like_output(z, program: Program) -> jax.Array:
  """As the function returns it; a shape that it does not return is refused."""
  out, into = aval_of(program.outvar), aval_of(program.invar)
  if jnp.shape(z) != out.shape:
    raise InversionError(
      f'z has shape {jnp.shape(z)}, but of inputs of shape'
      f' {into.shape} apply_fn makes shape {out.shape}.'
    )
  return jnp.asarray(z, out.dtype)


def newton_of(
  max_steps: int, newton_steps: int | None, linear_steps: int
) -> Newton:
  """How far Gauss–Newton may go; refuses what are no numbers of steps."""
  newton = Newton(max_steps, linear_steps)
  if newton_steps is not None:
    newton = newton._replace(steps=newton_steps)
    validation.check_steps('newton_steps', newton_steps)
  validation.check_steps('linear_steps', linear_steps)
  return newton


def check_hashable(apply_fn) -> None:
  """Refuses a function for which nothing that is compiled is found again."""
  advice = 'Give a function (params, x) -> z, and what it holds as params.'
  validation.check_hashable('apply_fn', apply_fn, advice, InversionError)


def _check(method, z, like, x, params) -> None:
  if method not in get_args(Method):
    raise InversionError(
      f'method must be one of {", ".join(get_args(Method))}, got {method!r}.'
    )
  if not jnp.issubdtype(like.dtype, jnp.floating):
    raise InversionError(
      f'x must be floats, got {like.dtype}: convert pictures to 0 … 1 first.'
    )
  if x is not None and jnp.shape(x) != like.shape:
    raise InversionError(
      f'x has shape {jnp.shape(x)}, but like has shape {like.shape}.'
    )
