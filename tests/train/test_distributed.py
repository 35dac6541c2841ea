"""Two processes train as one, and neither outlives the other in silence."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from run_helpers import last_state

from bort_jax.train import TrainConfig, train

SMALL = {
  'epochs': 1,
  'batch_size': 128,
  'model_options': ('widths=(4,6,8,10,12)',),
  'compare': False,
}
COMMAND = [
  *(sys.executable, '-c', 'from bort_jax.cli import main; main()', 'train'),
  *('--epochs', '1', '--batch-size', '128', '--no-compare'),
  *('--model-options', 'widths=(4,6,8,10,12)'),
]
# With more than one device a process, collectives of gloo can lock up.
ENVIRONMENT = {
  **os.environ,
  'XLA_FLAGS': '--xla_force_host_platform_device_count=1',
  'JAX_PLATFORMS': 'cpu',
}


def free_port():
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


def start(path, *options, count=2):
  port = free_port()
  return [
    subprocess.Popen(
      [
        *COMMAND,
        *('--run-dir', str(path), '--coordinator', f'127.0.0.1:{port}'),
        *('--num-processes', str(count), '--process-id', str(i)),
        *options,
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      env=ENVIRONMENT,
    )
    for i in range(count)
  ]


def ends_of(processes, seconds=180):
  outputs = []
  for process in processes:
    try:
      outputs.append(process.communicate(timeout=seconds)[0])
    finally:
      process.kill()
  return [p.returncode for p in processes], outputs


def saved_step(path):
  """Newest complete checkpoint; -1 where there is none."""
  names = [p.name for p in (path / 'checkpoints' / 'bort').glob('*')]
  return max((int(name) for name in names if name.isdigit()), default=-1)


def wait_for_step(path, step, processes, seconds=120):
  deadline = time.monotonic() + seconds
  while saved_step(path) < step:
    assert time.monotonic() < deadline, 'no checkpoint in time'
    assert all(p.poll() is None for p in processes), ends_of(processes)
    time.sleep(0.1)


def losses_of(path):
  rows = map(json.loads, (path / 'metrics.jsonl').read_text().splitlines())
  return [row['loss'] for row in rows if 'loss' in row]


@pytest.mark.slow
@pytest.mark.parametrize('parallel', ['jit', 'pmap'])
def test_two_processes_give_the_result_of_one(tmp_path, parallel):
  path = tmp_path / 'two'
  codes, outputs = ends_of(start(path, '--parallel', parallel))
  assert codes == [0, 0], outputs
  one = train(TrainConfig(run_dir=tmp_path / 'one', devices=1, **SMALL))
  losses = losses_of(path)
  assert len(losses) == 11
  np.testing.assert_allclose(losses, losses_of(tmp_path / 'one'), rtol=1e-5)
  params = last_state(path, 'bort')['params']
  for x, y in zip(
    jax.tree.leaves(params),
    jax.tree.leaves(one.fits['bort'].params),
    strict=True,
  ):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_a_restart_resumes(tmp_path):
  path = tmp_path / 'run'
  options = ('--checkpoint-steps', '1', '--epochs', '60')
  processes = start(path, *options)
  wait_for_step(path, 1, processes)
  processes[1].send_signal(signal.SIGKILL)
  codes, outputs = ends_of(processes)
  assert codes[0] not in (0, None)
  assert codes[1] == -signal.SIGKILL
  # Whichever is first to notice, this library or JAX, which then ends at once.
  said = ('Another process of the run has ended', 'another task died')
  assert any(text in outputs[0] for text in said)
  reached = saved_step(path)
  processes = start(path, *options, '--resume')
  wait_for_step(path, reached + 1, processes)
  for process in processes:
    process.send_signal(signal.SIGTERM)
  codes, outputs = ends_of(processes)
  assert codes == [143, 143], outputs
  assert 'Stopped by SIGTERM after step' in outputs[0]
