"""Data sets written without TensorFlow, read back by TFDS's own builders."""

import gzip
import hashlib
import io
import json
import struct
import tarfile
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from bort_jax.train import prepare as prepare_lib
from bort_jax.train import prepared
from bort_jax.train.archives import fetch, read_idx
from bort_jax.train.data import load_dataset
from bort_jax.train.errors import DataError
from bort_jax.train.prepare import prepare

VERSIONS = {
  'mnist': '3.0.1',
  'fashion_mnist': '3.0.1',
  'kmnist': '3.0.1',
  'cifar10': '3.0.2',
  'cifar100': '3.0.2',
}


# TFDS's writers warn of their own dependencies.
pytestmark = pytest.mark.filterwarnings('ignore')


def random_bytes(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write_idx(path, array):
  header = struct.pack('>BBBB', 0, 0, 8, array.ndim)
  header += struct.pack(f'>{array.ndim}I', *array.shape)
  path.write_bytes(gzip.compress(header + array.tobytes()))


def write_mnist(directory, train=12, test=5):
  directory.mkdir(exist_ok=True)
  arrays = {}
  for prefix, count in (('train', train), ('t10k', test)):
    images = random_bytes(count, 28, 28, seed=count)
    labels = np.arange(count, dtype=np.uint8) % 10
    write_idx(directory / f'{prefix}-images-idx3-ubyte.gz', images)
    write_idx(directory / f'{prefix}-labels-idx1-ubyte.gz', labels)
    arrays[prefix] = images, labels
  return arrays


def write_tar(path, members):
  with tarfile.open(path, 'w:gz') as archive:
    for name, data in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))


def cifar_batch(count, classes, seed):
  """Records as published: the labels, then the red, green and blue planes."""
  rng = np.random.default_rng(seed)
  labels = np.stack([rng.integers(0, k, count) for k in classes], axis=1)
  planes = rng.integers(0, 256, (count, 3, 32, 32))
  records = np.concatenate([labels, planes.reshape(count, -1)], axis=1)
  return labels, planes, records.astype(np.uint8).tobytes()


def write_cifar10(directory):
  directory.mkdir(exist_ok=True)
  names = '\n'.join(f'class{i}' for i in range(10)) + '\n\n'
  members, labels, planes = {}, [], []
  for number in range(1, 6):
    batch = cifar_batch(3, [10], number)
    members[f'cifar-10-batches-bin/data_batch_{number}.bin'] = batch[2]
    labels.append(batch[0])
    planes.append(batch[1])
  members['cifar-10-batches-bin/test_batch.bin'] = cifar_batch(4, [10], 6)[2]
  members['cifar-10-batches-bin/batches.meta.txt'] = names.encode()
  write_tar(directory / 'cifar-10-binary.tar.gz', members)
  return np.concatenate(labels), np.concatenate(planes)


def write_cifar100(directory):
  directory.mkdir(exist_ok=True)
  labels, planes, train = cifar_batch(6, [20, 100], 1)
  lines = lambda kind, count: '\n'.join(f'{kind} {i}' for i in range(count))
  members = {
    'cifar-100-binary/coarse_label_names.txt': lines('coarse', 20).encode(),
    'cifar-100-binary/fine_label_names.txt': lines('fine', 100).encode(),
    'cifar-100-binary/train.bin': train,
    'cifar-100-binary/test.bin': cifar_batch(2, [20, 100], 2)[2],
  }
  write_tar(directory / 'cifar-100-binary.tar.gz', members)
  return labels, planes


def stock_source(name, split, data_dir) -> Any:
  return tfds.data_source(name, split=split, data_dir=data_dir, download=False)


def by_id(source):
  return {example['id'].decode(): example for example in source}


@pytest.mark.parametrize('name', ['mnist', 'fashion_mnist', 'kmnist'])
def test_mnist_family_is_read_by_the_stock_builder(tmp_path, name):
  arrays = write_mnist(tmp_path / 'source')
  path = prepare(name, tmp_path / 'data', tmp_path / 'source')
  assert path == tmp_path / 'data' / name / VERSIONS[name]
  for split, prefix in (('train', 'train'), ('test', 't10k')):
    source = stock_source(name, split, tmp_path / 'data')
    images, labels = arrays[prefix]
    assert len(source) == len(images)
    # The examples are shuffled: found again by their pixels.
    index = {image.tobytes(): i for i, image in enumerate(images)}
    rows = [index[example['image'].tobytes()] for example in source]
    assert sorted(rows) == list(range(len(images)))
    assert [e['label'] for e in source] == [int(labels[i]) for i in rows]


def test_cifar10_is_read_by_the_stock_builder(tmp_path):
  labels, planes = write_cifar10(tmp_path / 'source')
  prepare('cifar10', tmp_path / 'data', tmp_path / 'source')
  examples = by_id(stock_source('cifar10', 'train', tmp_path / 'data'))
  assert sorted(examples) == [f'train_{i:05d}' for i in range(15)]
  for i in range(15):
    example = examples[f'train_{i:05d}']
    assert example['label'] == labels[i, 0]
    np.testing.assert_array_equal(example['image'][..., 2], planes[i, 2])
    np.testing.assert_array_equal(example['image'][..., 0], planes[i, 0])
  test = stock_source('cifar10', 'test', tmp_path / 'data')
  assert sorted(by_id(test)) == [f'test_{i:05d}' for i in range(4)]
  features = test.dataset_info.features
  assert features['label'].names == [f'class{i}' for i in range(10)]


def test_cifar100_has_both_labels_in_their_order(tmp_path):
  labels, planes = write_cifar100(tmp_path / 'source')
  prepare('cifar100', tmp_path / 'data', tmp_path / 'source')
  source = stock_source('cifar100', 'train', tmp_path / 'data')
  examples = by_id(source)
  for i in range(6):
    example = examples[f'train_{i:05d}']
    assert [example['coarse_label'], example['label']] == labels[i].tolist()
    np.testing.assert_array_equal(example['image'][..., 1], planes[i, 1])
  features = source.dataset_info.features
  assert features['coarse_label'].names[3] == 'coarse 3'
  assert features['label'].names[99] == 'fine 99'


@pytest.mark.parametrize('name', VERSIONS)
def test_features_and_version_equal_the_stock_builders(tmp_path, name):
  write = {'cifar10': write_cifar10, 'cifar100': write_cifar100}
  write.get(name, write_mnist)(tmp_path / 'source')
  prepare(name, tmp_path / 'data', tmp_path / 'source')
  ours = prepared.open_set(name, tmp_path / 'data').info
  stock = tfds.builder(name, data_dir=tmp_path / 'nothing').info
  assert ours.full_name == stock.full_name == f'{name}/{VERSIONS[name]}'
  assert repr(ours.features) == repr(stock.features)
  assert ours.supervised_keys == stock.supervised_keys == ('image', 'label')
  assert ours.description == stock.description


def test_a_prepared_set_is_loaded(tmp_path):
  write_mnist(tmp_path / 'source')
  prepare('mnist', tmp_path / 'data', tmp_path / 'source')
  data = load_dataset('mnist', tmp_path / 'data')
  assert data.train_images.shape == (12, 28, 28, 1)
  assert data.test_labels.shape == (5,)
  assert data.num_classes == 10


def test_progress_is_told_and_a_set_that_is_there_is_left_alone(tmp_path):
  write_mnist(tmp_path / 'source')
  told = []
  arguments = ('mnist', tmp_path / 'data', tmp_path / 'source')
  path = prepare(*arguments, progress=lambda *stage: told.append(stage))
  assert told == [('writing mnist train', 12, 12), ('writing mnist test', 5, 5)]
  before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
  told.clear()
  assert prepare(*arguments, progress=lambda *s: told.append(s)) == path
  assert told == [(f'{path} is there already', 1, 1)]
  assert {f: f.stat().st_mtime_ns for f in path.iterdir()} == before


def test_nothing_is_printed(tmp_path, capfd):
  write_mnist(tmp_path / 'source')
  prepare('mnist', tmp_path / 'data', tmp_path / 'source')
  assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError(28, 'No space')])
def test_an_interruption_leaves_nothing(tmp_path, error):
  write_mnist(tmp_path / 'source')

  def interrupt(stage, done, total):
    del stage, done, total
    raise error

  with pytest.raises((KeyboardInterrupt, DataError)):
    prepare('mnist', tmp_path / 'data', tmp_path / 'source', progress=interrupt)
  assert list((tmp_path / 'data').iterdir()) == []


def test_a_half_written_set_is_replaced(tmp_path):
  write_mnist(tmp_path / 'source')
  arguments = ('mnist', tmp_path / 'data', tmp_path / 'source')
  path = prepare(*arguments)
  shard = path / 'mnist-train.array_record-00000-of-00001'
  shard.write_bytes(shard.read_bytes()[:-100])
  (path / 'litter').touch()
  with pytest.raises(DataError, match='half-written'):
    load_dataset('mnist', tmp_path / 'data')
  assert prepare(*arguments) == path
  assert not (path / 'litter').exists()
  assert len(load_dataset('mnist', tmp_path / 'data').train_labels) == 12
  assert [file.name for file in (tmp_path / 'data').iterdir()] == ['mnist']


def test_a_set_in_another_format_is_kept(tmp_path):
  write_mnist(tmp_path / 'source')
  arguments = ('mnist', tmp_path / 'data', tmp_path / 'source')
  info = prepare(*arguments) / 'dataset_info.json'
  proto = json.loads(info.read_text())
  info.write_text(json.dumps({**proto, 'fileFormat': 'tfrecord'}))
  with pytest.raises(DataError, match=r'stored as tfrecord.*in another direct'):
    prepare(*arguments)
  assert info.exists()


def test_an_older_version_does_not_count(tmp_path):
  write_mnist(tmp_path / 'source')
  arguments = ('mnist', tmp_path / 'data', tmp_path / 'source')
  path = prepare(*arguments)
  path.rename(path.with_name('1.0.0'))
  assert prepare(*arguments) == path


def test_a_missing_archive_is_named_with_its_address(tmp_path):
  write_mnist(tmp_path / 'source')
  (tmp_path / 'source' / 't10k-labels-idx1-ubyte.gz').unlink()
  with pytest.raises(DataError) as error:
    prepare('mnist', tmp_path / 'data', tmp_path / 'source')
  assert 't10k-labels-idx1-ubyte.gz is not there' in str(error.value)
  assert 'https://storage.googleapis.com/' in str(error.value)


def damage_cut(source):
  path = source / 'train-images-idx3-ubyte.gz'
  path.write_bytes(path.read_bytes()[:-20])


def damage_shape(source):
  write_idx(source / 'train-images-idx3-ubyte.gz', random_bytes(12, 27, 28))


def damage_count(source):
  write_idx(source / 'train-labels-idx1-ubyte.gz', np.zeros(11, np.uint8))


def damage_class(source):
  write_idx(source / 'train-labels-idx1-ubyte.gz', np.full(12, 10, np.uint8))


def damage_length(source):
  path = source / 'train-images-idx3-ubyte.gz'
  path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def damage_kind(source):
  (source / 'train-images-idx3-ubyte.gz').write_bytes(b'<html>404</html>')


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (damage_cut, 'cannot be read'),
    (damage_shape, r'shape \(27, 28, 1\)'),
    (damage_count, '12 pictures and 11 labels'),
    (damage_class, 'labels up to 10'),
    (damage_length, 'not the product'),
    (damage_kind, 'cannot be read'),
  ],
)
def test_damaged_archives_are_refused(tmp_path, damage, message):
  write_mnist(tmp_path / 'source')
  damage(tmp_path / 'source')
  with pytest.raises(DataError, match=message):
    prepare('mnist', tmp_path / 'data', tmp_path / 'source')
  assert not (tmp_path / 'data' / 'mnist').exists()


def test_a_cifar_archive_that_lacks_a_batch_is_refused(tmp_path):
  write_tar(tmp_path / 'cifar-10-binary.tar.gz', {'readme': b''})
  with pytest.raises(DataError, match=r'lacks cifar-10-batches-bin/data_b'):
    prepare('cifar10', tmp_path / 'data', tmp_path)


def test_an_idx_file_of_another_rank_is_refused(tmp_path):
  write_idx(tmp_path / 'labels.gz', np.zeros(3, np.uint8))
  with pytest.raises(DataError, match='bytes with 3 axes'):
    read_idx(tmp_path / 'labels.gz', 3)


def test_a_download_is_verified_and_kept(tmp_path):
  content = random_bytes(3_000_000).tobytes()
  (tmp_path / 'web').mkdir()
  (tmp_path / 'web' / 'file.gz').write_bytes(content)
  url = (tmp_path / 'web' / 'file.gz').as_uri()
  told = []
  digest = hashlib.sha256(content).hexdigest()
  arguments = (url, digest, tmp_path / 'kept', lambda *s: told.append(s))
  path = fetch(*arguments)
  assert path.read_bytes() == content
  assert told[-1] == (f'downloading {url}', len(content), len(content))
  (tmp_path / 'web' / 'file.gz').unlink()
  assert fetch(*arguments) == path  # not downloaded again


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
  write_mnist(tmp_path / 'source')
  (tmp_path / 'data').touch()  # a file
  with pytest.raises(DataError, match='could not be written'):
    prepare('mnist', tmp_path / 'data', tmp_path / 'source')
  url = (tmp_path / 'source').as_uri()
  with pytest.raises(DataError, match='could not be downloaded'):
    fetch(url, '0' * 64, tmp_path / 'data' / 'kept', lambda *stage: None)


@pytest.mark.parametrize(
  ('name', 'message'),
  [('file', 'is not the published file'), ('absent', 'Without a network')],
)
def test_a_failed_download_leaves_nothing(tmp_path, name, message):
  (tmp_path / 'web').mkdir()
  (tmp_path / 'web' / 'file').write_bytes(b'other')
  url = (tmp_path / 'web' / name).as_uri()
  silent = lambda *stage: None
  with pytest.raises(DataError, match=message):
    fetch(url, '0' * 64, tmp_path / 'kept', silent)
  assert list((tmp_path / 'kept').iterdir()) == []


def test_downloads_are_those_that_tfds_has_registered(tmp_path, monkeypatch):
  write_mnist(tmp_path / 'source')
  asked = {}

  def give(url, sha256, directory, progress):
    del progress
    assert directory == tmp_path / 'data' / 'downloads' / 'mnist'
    asked[url.rpartition('/')[2]] = sha256
    return tmp_path / 'source' / url.rpartition('/')[2]

  monkeypatch.setattr(prepare_lib, 'fetch', give)
  prepare('mnist', tmp_path / 'data')
  # As published at the mirror of the original site.
  assert asked['train-images-idx3-ubyte.gz'].startswith('440fcabf73cc546fa214')
  assert len(asked) == 4


def test_other_sets_need_tensorflow_once(tmp_path, monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(DataError) as error:
    prepare('svhn_cropped', tmp_path)
  message = str(error.value)
  assert 'pip install tensorflow tensorflow-datasets' in message
  assert "tfds.builder('svhn_cropped', data_dir=" in message
  assert "file_format='array_record').download_and_prepare()" in message


def test_other_sets_are_prepared_by_tfds_where_tensorflow_is(
  tmp_path, monkeypatch
):
  write_mnist(tmp_path / 'source')
  done = {}

  class Stock:
    def download_and_prepare(self, download_config):
      done['manual_dir'] = download_config.manual_dir
      path = prepare('mnist', tmp_path / 'data', tmp_path / 'source')
      (tmp_path / 'data' / 'svhn_cropped').mkdir()
      path.rename(tmp_path / 'data' / 'svhn_cropped' / path.name)

  def builder(name, **options):
    done.update(options, name=name)
    return Stock()

  monkeypatch.setattr('importlib.util.find_spec', lambda name: object())
  monkeypatch.setattr(tfds, 'builder', builder)
  path = prepare('svhn_cropped', tmp_path / 'data', '/archives')
  assert path == tmp_path / 'data' / 'svhn_cropped' / '3.0.1'
  assert done == {
    'name': 'svhn_cropped',
    'data_dir': str(tmp_path / 'data'),
    'file_format': 'array_record',
    'manual_dir': '/archives',
  }
  done.clear()
  assert prepare('svhn_cropped', tmp_path / 'data') == path
  assert done == {}


def test_what_tfds_raises_is_passed_on(tmp_path, monkeypatch):
  def builder(name, **options):
    raise RuntimeError(f'no {name}')

  monkeypatch.setattr('importlib.util.find_spec', lambda name: object())
  monkeypatch.setattr(tfds, 'builder', builder)
  with pytest.raises(DataError, match='could not prepare .*no svhn_cropped'):
    prepare('svhn_cropped', tmp_path)


def test_an_unknown_set_gets_a_suggestion(tmp_path):
  with pytest.raises(DataError, match="Did you mean 'svhn_cropped'"):
    prepare('svhn_croped', tmp_path)
