"""The code of the README runs as it stands there, on parameters that fit it."""

import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

import bort_jax
from bort_jax.selection import matrix_views

README = (pathlib.Path(__file__).parent.parent / 'README.md').read_text()
SNIPPETS = re.findall(
  r'^```python\n(.*?)^```', README, re.DOTALL | re.MULTILINE
)
MLP = {
  'mlp': {'kernel': jnp.eye(4), 'bias': jnp.zeros(4)},
  'head': {'kernel': jnp.eye(4, 2), 'bias': jnp.zeros(2)},
}
CNN = {
  'body': {'kernel': jnp.ones((3, 3, 4, 8)), 'bias': jnp.zeros(8)},
  'depthwise': {'kernel': jnp.ones((3, 3, 1, 32))},
  'wte': {'weight': jnp.ones((9, 4))},
}
OUTPUT_FIRST = {'weight': jnp.ones((8, 4, 3, 3)), 'bias': jnp.zeros(8)}
STACKED = {'kernel': jnp.ones((5, 4, 4))}
OF_AXES = [CNN, CNN, MLP, OUTPUT_FIRST, STACKED]  # in the order they are shown


@pytest.mark.parametrize('snippet', SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_runs(snippet, monkeypatch):
  made, bort = [], bort_jax.bort
  remember = lambda tx: made.append(tx) or tx
  monkeypatch.setattr(
    bort_jax, 'bort', lambda *a, **kw: remember(bort(*a, **kw))
  )
  exec(snippet, {'params': MLP})
  fitting = OF_AXES if 'axes=' in snippet else [MLP] * len(made)
  for tx, params in zip(made, fitting, strict=True):
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    if params is CNN:
      assert updates['body']['kernel'].any()
      assert not updates['wte']['weight'].any()


def test_the_default_rule_takes_a_lookup_table_for_a_matrix_as_it_says():
  views = matrix_views(None, CNN)
  assert set(views) == {'body/kernel', 'depthwise/kernel', 'wte/weight'}
