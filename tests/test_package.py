"""What a user finds: documented names, typed, and a core that stays light."""

import dataclasses
import doctest
import importlib
import inspect
import pathlib
import subprocess
import sys

import pytest

import bort_jax

PACKAGES = (
  'bort_jax',
  'bort_jax.attacks',
  'bort_jax.attribution',
  'bort_jax.inversion',
  'bort_jax.metrics',
  'bort_jax.metrics.neurons',
  'bort_jax.nn',
  'bort_jax.nn.bcos',
  'bort_jax.nn.glassbox',
  'bort_jax.plots',
  'bort_jax.report',
  'bort_jax.spectrum',
  'bort_jax.symmetry',
  'bort_jax.train',
)


def public_names():
  for package in PACKAGES:
    module = importlib.import_module(package)
    for name, value in vars(module).items():
      is_ours = getattr(value, '__module__', '').startswith('bort_jax')
      if not name.startswith('_') and callable(value) and is_ours:
        yield pytest.param(value, id=f'{package}.{name}')


def is_record(value):
  """Whether it only holds what the example of its maker shows."""
  if not isinstance(value, type):
    return False
  is_named_tuple = issubclass(value, tuple) and hasattr(value, '_fields')
  is_plain = issubclass(value, Exception | dict)  # or options by their names
  is_called = '__call__' in vars(value)
  is_data = dataclasses.is_dataclass(value) and not is_called
  return is_named_tuple or is_plain or is_data


@pytest.mark.parametrize('value', list(public_names()))
def test_public_names_have_a_docstring_with_an_example(value):
  doc = inspect.getdoc(value)
  assert doc
  if not is_record(value):
    assert doctest.DocTestParser().get_examples(doc)


def test_the_names_of_the_optimizer_are_at_the_top():
  names = (
    'MatrixAxes bort bort_adamw bort_lamb bort_muon bort_sgd default_rule'
    ' keep_orthogonal'
  )
  for name in names.split():
    assert callable(getattr(bort_jax, name))


def test_the_core_imports_jax_and_optax_alone():
  heavy = 'flax chex orbax matplotlib rich sklearn tensorflow_datasets tyro'
  code = (
    'import sys, jax, optax; before = set(sys.modules); import bort_jax;'
    'new = {name.split(".")[0] for name in set(sys.modules) - before};'
    f'assert not new & set({heavy.split()!r}), new'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_no_import_starts_jax():
  # jax.distributed must be able to start first
  code = (
    'import bort_jax.attacks, bort_jax.terminal;'
    'from jax._src import xla_bridge; assert not xla_bridge._backends'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_the_package_is_typed():
  assert (pathlib.Path(bort_jax.__file__).parent / 'py.typed').exists()
