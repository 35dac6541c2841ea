"""Hundreds of small programs: what compiling them well costs is saved."""

import jax
import pytest

OPTION = 'jax_disable_most_optimizations'


@pytest.fixture(scope='module', autouse=True)
def _compile_fast():
  before = jax.config.read(OPTION)
  jax.config.update(OPTION, True)
  yield
  jax.config.update(OPTION, before)
