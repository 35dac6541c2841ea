"""The published archives of small sets: fetched, verified and read.

No pickle is loaded and nothing is unpacked to disk: IDX files are read as they
are, and of CIFAR the binary version.
"""

import contextlib
import gzip
import hashlib
import math
import os
import pathlib
import tarfile
import urllib.request
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from bort_jax.train.errors import DataError

# What is being done, how much of it is done, and how much there is to do.
Progress: TypeAlias = Callable[[str, int, int], None]

_BLOCK = 1 << 20
_TIMEOUT = 60  # seconds without a byte


def fetch(
  url: str, sha256: str, directory: pathlib.Path, progress: Progress
) -> pathlib.Path:
  """Downloads a file, unless it is there.

  Args:
    url: where it is published.
    sha256: its published checksum, in hexadecimal digits.
    directory: where it is kept; it appears there whole or not at all.
    progress: told of the bytes.

  Returns:
    The file.

  Raises:
    DataError: if it cannot be downloaded, or is not the published file.
  """
  path = directory / url.rpartition('/')[2]
  if path.exists() and _sha256(path) == sha256:
    return path
  part = path.with_name(f'{path.name}.{os.getpid()}.part')
  try:
    _download(url, part, progress)
    digest = _sha256(part)
    if digest != sha256:
      raise DataError(
        f'{url} is not the published file: its SHA-256 is {digest}, and'
        f' {sha256} was expected. Try again later; or put the published file'
        ' into a directory and name that with --source.'
      )
    part.replace(path)
  finally:
    with contextlib.suppress(OSError):
      part.unlink()
  return path


def _download(url: str, path: pathlib.Path, progress: Progress) -> None:
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
      urllib.request.urlopen(url, timeout=_TIMEOUT) as response,
      path.open('wb') as file,
    ):
      total = int(response.headers.get('Content-Length') or 0)
      done = 0
      while block := response.read(_BLOCK):
        file.write(block)
        done += len(block)
        progress(f'downloading {url}', done, total)
  except OSError as error:
    raise DataError(
      f'{url} could not be downloaded to {path.parent} ({error}). Without a'
      ' network, download it elsewhere, put it into a directory and name that'
      ' with --source.'
    ) from error


def _sha256(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def read_idx(path: pathlib.Path, rank: int) -> np.ndarray:
  """Reads a gzipped IDX file of bytes, the format of MNIST.

  Args:
    path: the file.
    rank: the number of axes, 3 for pictures and 1 for classes.

  Returns:
    The array, uint8.

  Raises:
    DataError: if the file is not of that format, is damaged or cut short.
  """
  try:
    with gzip.open(path) as file:
      data = file.read()
  except (OSError, EOFError) as error:
    raise _damaged(path, str(error)) from error
  # Two zeros, 8 for bytes, the rank, and each side as four bytes.
  header, values = data[: 4 * (rank + 1)], data[4 * (rank + 1) :]
  if header[:4] != bytes((0, 0, 8, rank)):
    raise _damaged(path, f'it is not an IDX file of bytes with {rank} axes')
  shape = tuple(np.frombuffer(header, '>u4')[1:].tolist())
  if len(values) != math.prod(shape):
    raise _damaged(
      path, f'it says {shape} and holds {len(values)} bytes, not the product'
    )
  return np.frombuffer(values, np.uint8).reshape(shape)


def read_cifar(
  path: pathlib.Path, members: Sequence[str], num_labels: int
) -> tuple[np.ndarray, np.ndarray]:
  """Reads batches of the binary version of CIFAR-10 or CIFAR-100.

  Args:
    path: the archive, ``cifar-10-binary.tar.gz``.
    members: the names of the batches in it.
    num_labels: the number of labels before each picture, 1 or 2.

  Returns:
    Pictures (N, 32, 32, 3) and labels (N, num_labels), uint8.

  Raises:
    DataError: if the archive is damaged or lacks a batch.
  """
  data = b''.join(_members(path, members))
  size = num_labels + 3 * 32 * 32
  if len(data) % size:
    raise _damaged(path, f'its batches are not records of {size} bytes')
  records = np.frombuffer(data, np.uint8).reshape(-1, size)
  planes = records[:, num_labels:].reshape(-1, 3, 32, 32)
  return planes.transpose(0, 2, 3, 1), records[:, :num_labels]


def read_lines(path: pathlib.Path, member: str) -> list[str]:
  """The lines of a text file in an archive, without the empty ones."""
  lines = _members(path, [member])[0].decode().split('\n')
  return [line for line in lines if line]


def _members(path: pathlib.Path, names: Sequence[str]) -> list[bytes]:
  """The contents of files in a gzipped tar archive, read in one pass."""
  found: dict[str, bytes] = {}
  try:
    with tarfile.open(path, 'r|gz') as archive:
      for member in archive:
        file = archive.extractfile(member) if member.name in names else None
        if file is not None:
          found[member.name] = file.read()
  except (OSError, EOFError, tarfile.TarError) as error:
    raise _damaged(path, str(error)) from error
  missing = [name for name in names if name not in found]
  if missing:
    raise _damaged(path, f'it lacks {", ".join(missing)}')
  return [found[name] for name in names]


def _damaged(path: pathlib.Path, why: str) -> DataError:
  return DataError(
    f'{path} cannot be read: {why}. Download the published file again.'
  )
