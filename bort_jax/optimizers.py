"""Optimizers that keep weights orthogonal: optax chains with Bort inside.

SGD takes the correction into its momentum, as published (BortS). The others
normalize the gradient they are given, which would normalize the correction
away, so there it is decoupled (the published BortA): added behind the
normalization, scaled by the learning rate alone.
"""

import jax
import jax.numpy as jnp
import optax

from bort_jax.correction import Amplitude, Mode
from bort_jax.decoupled import add_decoupled_bort
from bort_jax.grouped import on_split_matrices
from bort_jax.selection import AxesLike
from bort_jax.settings import (
  Mask,
  check_optimizer,
  refuse_collapse,
  require_params,
)
from bort_jax.transform import bort
from bort_jax.validation import check_momentum, check_steps


def bort_sgd(
  learning_rate: optax.ScalarOrSchedule,
  gamma: optax.ScalarOrSchedule,
  *,
  momentum: jax.typing.ArrayLike | None = None,
  nesterov: bool = False,
  weight_decay: float | jax.Array = 0.0,
  weight_decay_mask: Mask = None,
  amplitude: Amplitude = 1.0,
  mode: Mode = 'l2-full',
  axes: AxesLike = None,
  every: int | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""SGD with Bort: the published BortS, step by step.

  .. math::
    g &\leftarrow \nabla L + \gamma\, C(W) + \lambda W \\
    b &\leftarrow \mu b + g \\
    W &\leftarrow W - \eta b

  Args:
    learning_rate: η, a number >= 0 or a schedule.
    gamma: γ, a number >= 0 or a schedule; 0 is off.
    momentum: μ, in [0, 1); None keeps no buffer.
    nesterov: whether the momentum is Nesterov's.
    weight_decay: λ. It moves the constraint: in the l2 modes squared singular
      values (norms) go to a − λ/γ, so λ must stay below γ·a; in the l1 modes
      it must stay below γ.
    weight_decay_mask: the parameters that decay, as in ``optax.adamw``; by
      default all, as published. See the note of :func:`bort_jax.bort`.
    amplitude, mode, axes, every: the constraint, see :func:`bort_jax.bort`.

  Returns:
    The corresponding :class:`optax.GradientTransformationExtraArgs`.

  Raises:
    ValueError: as :func:`bort_jax.bort`, for a momentum outside its range, and
      for a weight decay that would collapse the weights.

  Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import optax
    >>> import bort_jax
    >>> params = {'kernel': jnp.array([[1.0, 0.2], [0.0, 2.0]])}
    >>> tx = bort_jax.bort_sgd(0.1, gamma=1.0, momentum=0.5)
    >>> state = tx.init(params)
    >>> for _ in range(100):
    ...   grads = jax.tree.map(jnp.zeros_like, params)
    ...   updates, state = tx.update(grads, state, params)
    ...   params = optax.apply_updates(params, updates)
    >>> error = bort_jax.spectrum.orthogonality_error(params)
    >>> bool(error['kernel'] < 1e-5)
    True

  References:
    Zhang et al., `Bort: Towards Explainable Neural Networks with Bounded
    Orthogonal Constraint <https://arxiv.org/abs/2212.09062>`_, 2023
  """
  check_optimizer(learning_rate, gamma, weight_decay, amplitude, mode)
  if momentum is not None:
    check_momentum(momentum)
  constraint = bort(
    gamma, amplitude=amplitude, mode=mode, axes=axes, every=every
  )
  decay = (weight_decay, weight_decay_mask)
  return optax.chain(
    refuse_collapse(constraint, gamma, *decay, amplitude, mode, axes),
    optax.add_decayed_weights(weight_decay, weight_decay_mask),
    optax.sgd(learning_rate, momentum, nesterov),
  )


def bort_adamw(
  learning_rate: optax.ScalarOrSchedule,
  gamma: optax.ScalarOrSchedule,
  *,
  b1: jax.typing.ArrayLike = 0.9,
  b2: jax.typing.ArrayLike = 0.999,
  eps: jax.typing.ArrayLike = 1e-8,
  weight_decay: float | jax.Array = 0.0,
  weight_decay_mask: Mask = None,
  amplitude: Amplitude = 1.0,
  mode: Mode = 'l2-full',
  axes: AxesLike = None,
  every: int | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""AdamW with Bort: the published BortA, step by step.

  .. math::
    W &\leftarrow (1 - \eta\lambda) W \\
    W &\leftarrow W - \eta\gamma\, C(W) \\
    W &\leftarrow W - \eta\, \mathrm{Adam}(\nabla L)

  Adam's step has a fixed size whatever the gradient's, so it resists the
  constraint: under a steady gradient the largest singular value of an m×n
  matrix settles near (√(mn)/γ)^{1/3}, whatever the learning rate. A γ of 10 to
  100 holds it near one; :func:`bort_jax.keep_orthogonal` holds it exactly.

  Args:
    learning_rate: η, a number >= 0 or a schedule.
    gamma: γ, a number >= 0 or a schedule; 0 is off. Keep η·γ·a below 1/2.
    b1, b2, eps: as in ``optax.adam``. For float16 parameters give an eps of
      1e-4: 1e-8 is zero there, and a zero gradient then gives NaN.
    weight_decay: λ, decoupled. It moves the constraint as in :func:`bort_sgd`,
      with the same limits.
    weight_decay_mask: the parameters that decay, as in :func:`bort_sgd`.
    amplitude, mode, axes, every: the constraint, see :func:`bort_jax.bort`.

  Returns:
    The corresponding :class:`optax.GradientTransformationExtraArgs`.

  Raises:
    ValueError: as :func:`bort_jax.bort`, and for a weight decay that would
      collapse the weights.

  Examples:
    >>> import jax.numpy as jnp
    >>> import bort_jax
    >>> params = {'kernel': jnp.eye(3), 'bias': jnp.zeros(3)}
    >>> tx = bort_jax.bort_adamw(1e-3, gamma=10.0)
    >>> state = tx.init(params)
    >>> grads = {'kernel': jnp.ones((3, 3)), 'bias': jnp.ones(3)}
    >>> updates, state = tx.update(grads, state, params)
    >>> round(float(updates['bias'][0]), 6)
    -0.001

  References:
    Zhang et al., `Bort: Towards Explainable Neural Networks with Bounded
    Orthogonal Constraint <https://arxiv.org/abs/2212.09062>`_, 2023
  """
  check_optimizer(learning_rate, gamma, weight_decay, amplitude, mode)
  decay = (weight_decay, weight_decay_mask)
  return optax.chain(
    optax.scale_by_adam(b1, b2, eps),
    add_decoupled_bort(
      learning_rate, gamma, *decay, amplitude, mode, axes, every
    ),
    optax.scale_by_learning_rate(learning_rate),
  )


def bort_lamb(
  learning_rate: optax.ScalarOrSchedule,
  gamma: optax.ScalarOrSchedule,
  *,
  b1: jax.typing.ArrayLike = 0.9,
  b2: jax.typing.ArrayLike = 0.999,
  eps: jax.typing.ArrayLike = 1e-6,
  weight_decay: float | jax.Array = 0.0,
  weight_decay_mask: Mask = None,
  amplitude: Amplitude = 1.0,
  mode: Mode = 'l2-full',
  axes: AxesLike = None,
  every: int | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""LAMB with Bort: decoupled, after the trust ratio.

  .. math::
    W \leftarrow W - \eta\left(r\,(\mathrm{Adam}(\nabla L) + \lambda W)
    + \gamma\, C(W)\right), \qquad
    r = \frac{\|W\|}{\|\mathrm{Adam}(\nabla L) + \lambda W\|}

  The trust ratio r makes every layer's step a fixed share of its weight. Inside
  it the correction would be rescaled with the gradient, and would not vanish as
  the constraint is met; behind it, η·γ means the same as in
  :func:`bort_adamw` and the same stability law holds. Weight decay stays inside
  the trust ratio, where LAMB has it, so it pulls with strength r·λ: as the
  gradient vanishes r·λ goes to one, whatever λ, and σ² to a − 1/γ. The paper
  reports results with LAMB but published no code for it: this placement is
  ours. So is r = 1 for scalars: a step in proportion to its own size would hold
  one near zero, as that of :class:`bort_jax.nn.LogitScale`, where it is.

  Args:
    learning_rate: η, a number >= 0 or a schedule.
    gamma: γ, a number >= 0 or a schedule; 0 is off.
    b1, b2, eps: as in ``optax.adam``.
    weight_decay: λ, see above; keep γ·a well above one with it.
    weight_decay_mask: the parameters that decay, as in :func:`bort_sgd`.
    amplitude, mode, axes, every: the constraint, see :func:`bort_jax.bort`.

  Returns:
    The corresponding :class:`optax.GradientTransformationExtraArgs`.

  Raises:
    ValueError: as :func:`bort_jax.bort`.

  Examples:
    >>> import jax.numpy as jnp
    >>> import bort_jax
    >>> params = {'kernel': jnp.eye(2)}
    >>> tx = bort_jax.bort_lamb(0.01, gamma=10.0)
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> round(float(updates['kernel'][0, 0]), 4)
    -0.01

  References:
    You et al., `Large Batch Optimization for Deep Learning: Training BERT in 76
    minutes <https://arxiv.org/abs/1904.00962>`_, 2019
  """
  check_optimizer(learning_rate, gamma, weight_decay, amplitude, mode)
  return optax.chain(
    require_params(),
    optax.scale_by_adam(b1, b2, eps),
    optax.add_decayed_weights(weight_decay, weight_decay_mask),
    optax.masked(
      optax.scale_by_trust_ratio(),
      lambda tree: jax.tree.map(lambda x: jnp.ndim(x) > 0, tree),
    ),
    add_decoupled_bort(
      learning_rate, gamma, 0.0, None, amplitude, mode, axes, every
    ),
    optax.scale_by_learning_rate(learning_rate),
  )


def bort_muon(
  learning_rate: optax.ScalarOrSchedule,
  gamma: optax.ScalarOrSchedule,
  *,
  beta: jax.typing.ArrayLike = 0.95,
  ns_steps: int = 5,
  nesterov: bool = True,
  b1: jax.typing.ArrayLike = 0.9,
  b2: jax.typing.ArrayLike = 0.999,
  eps: jax.typing.ArrayLike = 1e-8,
  weight_decay: float | jax.Array = 0.0,
  weight_decay_mask: Mask = None,
  amplitude: Amplitude = 1.0,
  mode: Mode = 'l2-full',
  axes: AxesLike = None,
  every: int | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Muon with Bort: decoupled, after the orthogonalized update.

  .. math::
    W &\leftarrow (1 - \eta\lambda) W \\
    W &\leftarrow W - \eta\gamma\, C(W) \\
    W &\leftarrow W - \eta\, \mathrm{Muon}(\nabla L)

  Muon orthogonalizes the *update* and never looks at the weight. Before it, the
  correction would be replaced by its orthogonal factor and never vanish; behind
  it, the two balance without regard to the layer's width: against updates of
  spectral norm s, the largest singular value settles where σ³ − aσ = s/γ (1.05
  for s = 1, γ = 10, a = 1). Adam needs a larger γ.

  The step is that of ``optax.contrib.muon``, s = √max(1, outputs/inputs), for
  the matrices that ``axes`` selects, groups and batch axes included; every
  other parameter takes its Adam step.

  Args:
    learning_rate: η, a number >= 0 or a schedule, for both kinds of step.
    gamma: γ, a number >= 0 or a schedule; 0 is off.
    beta: decay rate of Muon's momentum.
    ns_steps: Newton–Schulz iterations on Muon's update.
    nesterov: whether the momentum is Nesterov's, in Muon and in Adam.
    b1, b2, eps: as in :func:`bort_adamw`, for the other parameters; eps guards
      Muon's normalization too.
    weight_decay: λ, decoupled, as in :func:`bort_adamw`.
    weight_decay_mask: the parameters that decay, as in :func:`bort_sgd`.
    amplitude, mode, axes, every: the constraint, see :func:`bort_jax.bort`.

  Returns:
    The corresponding :class:`optax.GradientTransformationExtraArgs`.

  Raises:
    ValueError: as :func:`bort_jax.bort_adamw`, and for ns_steps < 1.

  Examples:
    >>> import jax.numpy as jnp
    >>> import bort_jax
    >>> params = {'kernel': jnp.eye(2), 'bias': jnp.zeros(2)}
    >>> tx = bort_jax.bort_muon(0.01, gamma=10.0)
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> updates['kernel'].shape
    (2, 2)

  References:
    Jordan, `Muon: An optimizer for hidden layers in neural networks
    <https://kellerjordan.github.io/posts/muon/>`_, 2024
  """
  check_optimizer(learning_rate, gamma, weight_decay, amplitude, mode)
  check_steps('ns_steps', ns_steps)

  def muon(dimension_numbers):
    return optax.contrib.muon(
      learning_rate=-1.0,  # the direction itself, to be scaled below
      ns_steps=ns_steps,
      beta=beta,
      eps=eps,
      nesterov=nesterov,
      adam_b1=b1,
      adam_b2=b2,
      muon_weight_dimension_numbers=dimension_numbers,
    )

  decay = (weight_decay, weight_decay_mask)
  return optax.chain(
    on_split_matrices(muon, axes),
    add_decoupled_bort(
      learning_rate, gamma, *decay, amplitude, mode, axes, every
    ),
    optax.scale_by_learning_rate(learning_rate),
  )
