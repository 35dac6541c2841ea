"""What networks are called in figures and tables, and their colours."""

from collections.abc import Iterable

from bort_jax.train.comparison import CONTROL

_LABELS = {
  'sgd': 'SGD',
  'adamw': 'AdamW',
  'lamb': 'LAMB',
  'muon': 'Muon',
  'bort': 'Bort',
  CONTROL: 'untrained (control)',
}
_HARD = 'Bort (hard)'


def label_of(network: str, constraint: str) -> str:
  """How figures and tables call a network of a run under a constraint.

  Args:
    network: ``'bort'``, the plain one by its optimizer's name, or
      ``'untrained'``.
    constraint: ``'soft'``, ``'hard'`` or ``'none'``, as in ``TrainConfig``.

  Returns:
    The label.

  Examples:
    >>> from bort_jax import plots
    >>> plots.label_of('bort', 'hard')
    'Bort (hard)'
  """
  is_hard = network == 'bort' and constraint == 'hard'
  return _HARD if is_hard else _LABELS[network]


def colors_of(labels: Iterable[str]) -> dict[str, str]:
  """The colour of each network: always the same for those of one run."""
  borts = {_HARD, _LABELS['bort']}
  if set(labels) <= {*borts, *_LABELS.values()}:
    return {label: 'C0' if label in borts else 'C1' for label in labels}
  return {label: f'C{i}' for i, label in enumerate(labels)}
