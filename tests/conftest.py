"""Settings that surface dtype and shape mistakes early, for every test."""

import atexit
import importlib.metadata
import os
import shutil
import tempfile

# What several tests and the processes they start compile is compiled once, the
# small programs too, of which there are thousands.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp()
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  atexit.register(shutil.rmtree, os.environ['JAX_COMPILATION_CACHE_DIR'])

# Eight virtual devices, before jax starts: the parallel tests need them.
if 'XLA_FLAGS' not in os.environ:
  os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'
  # Where XLA still has the older of its two ways to compile a fusion, it takes
  # half the time. Later versions refuse the flag.
  if importlib.metadata.version('jaxlib').startswith('0.10.'):
    os.environ['XLA_FLAGS'] += ' --xla_cpu_use_fusion_emitters=false'
# Of thousands of small programs, what compiling them well costs is saved.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import pytest

jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture
def float64():
  """Runs a test with 64-bit types on."""
  with jax.enable_x64(True):
    yield


ITERATING = ('attacks', 'inversion')  # run longer than they compile
COMPILING = ('test_networks',)  # but not these modules of theirs


@pytest.fixture(scope='module', autouse=True)
def _compilation(request):
  """Compiles well what iterates, and frees what a module compiled.

  Memory maps of a process are limited: at 65,530 of them, after some thousand
  programs, XLA crashes.
  """
  path = request.path
  fast = path.parent.name not in ITERATING or path.stem in COMPILING
  jax.config.update('jax_disable_most_optimizations', fast)
  yield
  jax.clear_caches()


def pytest_terminal_summary(terminalreporter):
  """Prints the deviations that tests of parity recorded, in any process."""
  rows = dict(
    value
    for outcome in ('passed', 'failed')
    for report in terminalreporter.getreports(outcome)
    for name, value in report.user_properties
    if name == 'parity'
  )
  if not rows:
    return
  terminalreporter.section('largest deviation from the published code, float64')
  columns = ()
  for case, worst in sorted(rows.items(), key=lambda row: tuple(row[1])):
    if columns != tuple(worst):
      columns = tuple(worst)
      heads = ''.join(f'{column:>15}' for column in columns)
      terminalreporter.line(f'{"case":22}{heads}')
    cells = ''.join(f'{worst[column]:15.1e}' for column in columns)
    terminalreporter.line(f'{case:22}{cells}')
