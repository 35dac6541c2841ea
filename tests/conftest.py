"""Settings that surface dtype and shape mistakes early, for every test."""

import os

# Eight virtual devices, before jax starts: the parallel tests need them.
os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=8')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import pytest

jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture
def float64():
  """Runs a test with 64-bit types on."""
  with jax.enable_x64(True):
    yield
