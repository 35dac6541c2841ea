"""What users can reach is explained, with an example that is run."""

import dataclasses
import importlib
import inspect

import pytest

PACKAGES = (
  'bort_jax',
  'bort_jax.attacks',
  'bort_jax.attribution',
  'bort_jax.inversion',
  'bort_jax.metrics',
  'bort_jax.nn',
  'bort_jax.nn.bcos',
  'bort_jax.plots',
  'bort_jax.report',
  'bort_jax.spectrum',
  'bort_jax.train',
)


def public(package):
  """Functions and classes of ours, by name."""
  return {
    name: value
    for name, value in vars(importlib.import_module(package)).items()
    if not name.startswith('_')
    and getattr(value, '__module__', '').startswith('bort_jax')
    and (inspect.isfunction(value) or inspect.isclass(value))
  }


def is_result(value):
  """Classes that users are given, and errors; they need no example."""
  if not inspect.isclass(value):
    return False
  plain = dataclasses.is_dataclass(value) and '__call__' not in vars(value)
  return plain or issubclass(value, tuple | dict | Exception)


@pytest.mark.parametrize('package', PACKAGES)
def test_every_public_name_has_a_docstring_with_an_example(package):
  names = public(package)
  assert names
  assert [n for n, v in names.items() if not inspect.getdoc(v)] == []
  lacking = [
    name
    for name, value in names.items()
    if not is_result(value) and '>>>' not in (inspect.getdoc(value) or '')
  ]
  assert lacking == []
