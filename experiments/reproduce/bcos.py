r"""B-cos networks judged: accuracy, localisation, orthogonality, inversion.

Trains a B-cos network at several B, without Bort, with it in the optimizer, and
with rows of length 1 alone (a control: B-cos layers ignore that length, but the
angle of a step depends on it), and judges each: the grid pointing game of its
own explanations and of post-hoc methods on the same network, pixel
perturbation, the alignment of its layers, and what comes back when it is run
backwards. Writes tables, numbers and a figure into ``bcos/DATA_MODEL/``.
Networks that are trained already, in ``--runs``, and judged already are not
done again, so a command may be repeated until it is through. From the project's
root:

    python experiments/reproduce/bcos.py digits --seeds 0 1
    python experiments/reproduce/bcos.py digits --b 2 --seeds 0 1 2 3 \
      --constraints none soft rows
    python experiments/reproduce/bcos.py mnist_bcos_resnet8 --b 2 \
      --epochs 6 --constraints none --data-dir DIR
    python experiments/reproduce/bcos.py cifar10_bcos_resnet20 --data-dir DIR

The first two are those of the digits' table. That of CIFAR-10 is short:

    python experiments/reproduce/bcos.py cifar10_bcos_resnet20 --data-dir DIR \
      --constraints none --epochs 1 --train-split 'train[:40%]' \
      --scope.confidence None --scope.mosaics 24 --scope.posthoc-mosaics 4 \
      --scope.posthoc 'gradient × input' --scope.perturbed 16 \
      --scope.inverted 2 --scope.layers stem \
      --note 'The pictures are of a JPEG-recompressed copy of CIFAR-10.'
"""

import dataclasses
import itertools
import json
import pathlib
import re
from typing import Any, Literal

import bcos_tables
import tyro
from bcos_measures import Judge
from bcos_scope import Scope, names_of

from bort_jax import configs
from bort_jax.train import TrainConfig, train
from bort_jax.train.comparison import network_of
from bort_jax.train.parallel import make_parallel
from bort_jax.train.source import make_source

_WHOLE = Scope()
Training = Literal['none', 'soft', 'rows']
# The 8×8 digits that come with scikit-learn: minutes for all, no download.
_DIGITS = TrainConfig(
  model='bcos_resnet8',
  init='default',
  logit_scale=False,
  learning_rate=3e-3,
  warmup=0.0,
  weight_decay=0.0,
  loss='bce',
  constraint='none',
  epochs=15,
  compare=False,
)


def main(
  config: tyro.conf.Positional[str],
  b: tuple[float, ...] = (1.0, 1.25, 2.0),
  constraints: tuple[Training, ...] = ('none', 'soft', 'rows'),
  seeds: tuple[int, ...] = (0,),
  gamma: float = 10.0,
  max_out: int = 1,
  epochs: int | None = None,
  train_split: str = 'train',
  data_dir: pathlib.Path | None = None,
  runs: pathlib.Path = pathlib.Path('runs'),
  scope: Scope = _WHOLE,
  note: str = '',
) -> None:
  """Trains and judges.

  Args:
    config: digits, or the name of a configuration of a B-cos network.
    b: exponents.
    constraints: none: as published. soft: with Bort. rows: a control, with
      only the length of each unit's weights held at 1, which B-cos layers
      ignore but for the size of steps.
    seeds: of weights and batches.
    gamma: strength of Bort and of its control. With 100, the library's
      default, training diverges from the published initial weights, whose
      singular values reach 4.8.
    max_out: units of one output; 2 is published too, and takes twice as long.
    epochs: instead of those of the configuration.
    train_split: part of the set to train on.
    data_dir: TFDS directory.
    runs: where trained networks are kept.
    scope: how much is judged.
    note: what else is to be known of the data; stands under the tables.
  """
  base = _DIGITS if config == 'digits' else configs.load_config(config)
  base = dataclasses.replace(
    base,
    epochs=epochs or base.epochs,
    train_split=train_split,
    data_dir=data_dir,
  )
  folder = pathlib.Path(__file__).parent / 'bcos' / f'{base.data}_{base.model}'
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / 'results.json'
  arms = json.loads(path.read_text()) if path.exists() else {}
  facts: dict[str, Any] = {}
  for exponent in b:
    judge = None  # compiled for an exponent, shared by what differs in weights
    for constraint, seed in itertools.product(constraints, seeds):
      trained = under(base, constraint, gamma)
      arm = arm_of(trained, exponent, max_out, seed, runs)
      facts = _facts(arm, scope)
      name = _name_of(arm, exponent, max_out)
      if _judged(arms.get(name, {}), facts, scope):
        continue
      result = train(arm)
      (fit,) = result.fits.values()
      if judge is None:
        source = make_source(arm)
        network = network_of(arm, source, make_parallel(arm))
        judge = Judge(network, source, exponent, scope)
      (row,) = result.rows
      found = {
        'accuracy': row.test_accuracy,
        'orthogonality error': row.orthogonality_error,
        'seconds': round(row.seconds),
        **_so_far(arm, facts),
      }
      for measure, judged in judge.measures(fit.params, fit.stats).items():
        if measure not in found:
          found[measure] = judged()
          _write(_place(arm), found)
          print(name, measure, flush=True)
      arms[name] = found
      _write(path, arms)
  beside = {k: v for k, v in arms.items() if _beside(v['facts'], facts, gamma)}
  bcos_tables.write(folder, beside, note)


def under(base: TrainConfig, constraint: Training, gamma: float) -> TrainConfig:
  """The settings with what is added to the gradient."""
  if constraint == 'none':
    return dataclasses.replace(base, constraint='none')
  mode = 'l2-row' if constraint == 'rows' else 'l2-full'
  return dataclasses.replace(base, constraint='soft', gamma=gamma, mode=mode)


def arm_of(
  base: TrainConfig,
  exponent: float,
  max_out: int,
  seed: int,
  runs: pathlib.Path,
) -> TrainConfig:
  """The settings of one network, and the directory of its run."""
  base = dataclasses.replace(base, seed=seed)
  name = _name_of(base, exponent, max_out)
  return dataclasses.replace(
    base,
    model_options=(f'b={exponent}', f'max_out={max_out}'),
    resume=True,
    run_dir=runs / re.sub(r'[^\w.=]+', '_', f'{base.data} {name}'),
  )


def _name_of(arm: TrainConfig, exponent: float, max_out: int) -> str:
  """By what networks of one folder differ."""
  added = 'rows' if arm.mode == 'l2-row' else 'bort'
  bort = f'{added}={arm.gamma:g}' if arm.constraint == 'soft' else 'plain'
  return (
    f'B={exponent:g} {bort} max_out={max_out} epochs={arm.num_epochs}'
    f' {arm.train_split} seed={arm.seed}'
  )


def _judged(arm: dict[str, Any], facts: dict[str, Any], scope: Scope) -> bool:
  """Whether nothing is left to measure."""
  return arm.get('facts') == facts and all(n in arm for n in names_of(scope))


def _place(arm: TrainConfig) -> pathlib.Path:
  """Where measures are until all are there: beside the network they are of."""
  assert arm.run_dir is not None
  return arm.run_dir / 'judged.json'


def _so_far(arm: TrainConfig, facts: dict[str, Any]) -> dict[str, Any]:
  path = _place(arm)
  found = json.loads(path.read_text()) if path.exists() else {}
  return found if found.get('facts') == facts else {'facts': facts}


def _beside(
  others: dict[str, Any], facts: dict[str, Any], gamma: float
) -> bool:
  """Whether networks stand in one table, whatever their B and seed."""
  free = ('options', 'constraint', 'gamma', 'mode', 'seed')
  rest = lambda facts: {k: v for k, v in facts.items() if k not in free}
  return (
    rest(others) == rest(facts)
    and others['options'][1:] == facts['options'][1:]
    and others['gamma'] in (None, gamma)
  )


def _write(path: pathlib.Path, content: dict[str, Any]) -> None:
  path.write_text(json.dumps(content, indent=1) + '\n')


def _facts(arm: TrainConfig, scope: Scope) -> dict[str, Any]:
  """On what the numbers of an arm depend, as JSON has it."""
  scope_facts = dataclasses.asdict(scope)
  del scope_facts['layers']  # each has a measure of its own
  facts = {
    'data': arm.data,
    'model': arm.model,
    'options': arm.model_options,
    'constraint': arm.constraint,
    'gamma': arm.gamma if arm.constraint == 'soft' else None,
    'mode': arm.mode if arm.constraint == 'soft' else None,
    'epochs': arm.num_epochs,
    'train_split': arm.train_split,
    'batch_size': arm.batch_size,
    'seed': arm.seed,
    'scope': scope_facts,
  }
  return json.loads(json.dumps(facts))


if __name__ == '__main__':
  tyro.cli(main)
