"""Data sets: found, read, batched, and refused with a remedy."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from bort_jax.train import TrainConfig, prepared
from bort_jax.train.data import batches, load_dataset, padded_batches
from bort_jax.train.errors import DataError
from bort_jax.train.source import make_source


def test_digits_are_split_without_overlap():
  digits = load_dataset('digits')
  assert digits.train_images.shape == (1437, 8, 8, 1)
  assert digits.test_images.shape == (360, 8, 8, 1)
  assert digits.train_images.dtype == np.uint8
  assert digits.train_images.max() == 255
  assert set(digits.test_labels) == set(range(10))


def test_batches_are_full_disjoint_and_reproducible():
  images = np.arange(10)[:, None]
  labels = np.arange(10)
  take = lambda seed: [y for _, y in batches(images, labels, 3, seed)]
  first = take((0, 1))
  assert [len(y) for y in first] == [3, 3, 3]
  assert len(set(np.concatenate(first))) == 9
  np.testing.assert_array_equal(first, take((0, 1)))
  assert not np.array_equal(first, take((0, 2)))


def test_padded_batches_hold_every_picture_once():
  images, labels = np.ones((7, 2, 2, 1), np.uint8), np.arange(7)
  got = list(padded_batches(images, labels, 3))
  assert {x.shape for x, _, _ in got} == {(3, 2, 2, 1)}
  kept = np.concatenate([y[mask] for _, y, mask in got])
  np.testing.assert_array_equal(kept, labels)


def write_set(
  directory,
  *,
  file_format='array_record',
  shape=(8, 8, 1),
  splits=2,
  version='1.0.0',
  features=None,
):
  """Writes a tiny TFDS set, as its builders do, without TensorFlow."""
  import PIL.Image
  import tensorflow_datasets as tfds

  features = features or {
    'image': tfds.features.Image(shape=shape),
    'label': tfds.features.ClassLabel(num_classes=3),
  }

  def examples(count, offset):
    for i in range(count):
      levels = np.full((8, 8), 10 * i + offset, np.uint8)
      whole = {'image': PIL.Image.fromarray(levels), 'label': i % 3}
      yield i, {name: whole[name] for name in features}

  class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version(version)
    name = 'tiny'

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      del dl_manager
      all_splits = {'train': examples(5, 0), 'test': examples(4, 1)}
      return dict(list(all_splits.items())[:splits])

    def _generate_examples(self):
      yield from ()

  builder = Tiny(data_dir=str(directory), file_format=file_format)
  builder.download_and_prepare()
  return directory / 'tiny' / version


@pytest.mark.filterwarnings('ignore')  # TFDS's writers warn; readers must not
def test_reads_a_tfds_set(tmp_path):
  write_set(tmp_path)
  tiny = load_dataset('tiny', tmp_path)
  np.testing.assert_array_equal(
    np.sort(tiny.train_images[:, 0, 0, 0]), [0, 10, 20, 30, 40]
  )
  np.testing.assert_array_equal(
    tiny.test_labels, (tiny.test_images[:, 0, 0, 0] // 10) % 3
  )
  assert tiny.num_classes == 3


def test_an_absent_set_says_where_it_was_sought(tmp_path):
  (tmp_path / 'cifar10' / '3.0.2').mkdir(parents=True)
  (tmp_path / 'cifar10' / '3.0.2' / 'dataset_info.json').touch()
  with pytest.raises(DataError) as error:
    load_dataset('mnist', tmp_path)
  message = str(error.value)
  assert "'mnist'" in message
  assert str(tmp_path) in message
  assert 'which holds cifar10. Give another' in message
  assert 'digits needs no download' in message


@pytest.mark.parametrize(
  ('name', 'near'),
  [('digit', 'digits'), ('fashon_mnist', 'fashion_mnist'), ('mine', 'mime')],
)
def test_a_misspelt_set_gets_the_nearest_name(tmp_path, name, near):
  (tmp_path / 'mime' / '1.0.0').mkdir(parents=True)
  (tmp_path / 'mime' / '1.0.0' / 'dataset_info.json').touch()
  with pytest.raises(DataError, match=f'Did you mean {near!r}'):
    load_dataset(name, tmp_path)


def test_an_absent_directory_is_named(tmp_path):
  with pytest.raises(DataError, match='nowhere, which holds no data set'):
    load_dataset('mnist', tmp_path / 'nowhere')


def test_the_environment_names_the_directory(tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  with pytest.raises(DataError, match=str(tmp_path)):
    load_dataset('mnist')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'file_format': 'parquet'}, 'stored as parquet'),
    ({'shape': (None, None, 1)}, 'differ in size'),
    ({'splits': 1}, 'its splits are train'),
  ],
)
def test_refuses_what_cannot_be_read(tmp_path, options, message):
  write_set(tmp_path, **options)
  with pytest.raises(DataError, match=message):
    load_dataset('tiny', tmp_path)


@pytest.mark.filterwarnings('ignore')
def test_refuses_what_tfds_says_is_tfrecord(tmp_path):
  info = write_set(tmp_path) / 'dataset_info.json'
  proto = json.loads(info.read_text())
  info.write_text(json.dumps({**proto, 'fileFormat': 'tfrecord'}))
  with pytest.raises(DataError, match='stored as tfrecord.*bort-jax prepare'):
    load_dataset('tiny', tmp_path)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
  ('features', 'message'),
  [
    (lambda f: {'image': f.Image(shape=(8, 8, 1))}, 'needs image and label'),
    (
      lambda f: {
        'image': f.Image(shape=(8, 8, 1)),
        'label': f.Scalar(np.int64),
      },
      'not one class of a known number',
    ),
    (
      lambda f: {
        'image': f.Image(shape=(8, 8, 4)),
        'label': f.ClassLabel(num_classes=3),
      },
      '4 channels',
    ),
    (
      lambda f: {
        'image': f.Image(shape=(8, 8, 1), dtype=np.uint16),
        'label': f.ClassLabel(num_classes=3),
      },
      '8-bit pictures',
    ),
  ],
)
def test_refuses_other_features(tmp_path, features, message):
  import tensorflow_datasets as tfds

  write_set(tmp_path, features=features(tfds.features))
  with pytest.raises(DataError, match=message):
    load_dataset('tiny', tmp_path)


def cut(path):
  path.write_bytes(path.read_bytes()[:-1000])


def shorten(path):
  """Another file, whole, but with fewer examples than there should be."""
  shutil.copy(path.with_name(path.name.replace('train', 'test')), path)


def empty(path):
  path.write_bytes(b'')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda path: path.unlink(), 'is missing, and 5 belong in it'),
    (cut, 'holds 0 examples, and 5'),
    (empty, 'holds 0 examples, and 5'),
    (shorten, 'holds 4 examples, and 5'),
  ],
)
def test_refuses_files_that_are_not_whole(tmp_path, damage, message):
  path = write_set(tmp_path)
  damage(path / 'tiny-train.array_record-00000-of-00001')
  with pytest.raises(DataError) as error:
    load_dataset('tiny', tmp_path)
  assert 'half-written' in str(error.value)
  assert message in str(error.value)
  assert f'bort-jax prepare tiny --data-dir {tmp_path}.' in str(error.value)


@pytest.mark.filterwarnings('ignore')
def test_refuses_a_set_whose_writing_was_interrupted(tmp_path):
  path = write_set(tmp_path)
  (path / 'dataset_info.json').unlink()
  with pytest.raises(DataError, match='half-written: it has no dataset_info'):
    load_dataset('tiny', tmp_path)
  path.rename(path.with_name('1.0.0.incompleteABCDEF'))  # as TFDS calls it
  with pytest.raises(DataError, match='half-written: it has no dataset_info'):
    load_dataset('tiny', tmp_path)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['dataset_info.json', 'features.json'])
def test_refuses_damaged_descriptions(tmp_path, name):
  (write_set(tmp_path) / name).write_text('{"name": ')
  with pytest.raises(DataError, match=r'is damaged .*bort-jax prepare tiny'):
    load_dataset('tiny', tmp_path)


@pytest.mark.filterwarnings('ignore')
def test_versions_are_numbers_and_can_be_named(tmp_path):
  for version in ('9.0.0', '10.0.0'):
    write_set(tmp_path, version=version)
  assert prepared.find('tiny', tmp_path).name == '10.0.0'
  assert prepared.find('tiny:9.0.0', tmp_path).name == '9.0.0'
  with pytest.raises(DataError, match=r'in version 9.0.0, 10.0.0, and version'):
    load_dataset('tiny:3.0.1', tmp_path)


def test_a_configuration_has_to_be_named_where_there_are_several(tmp_path):
  for config in ('digits', 'letters'):
    version = tmp_path / 'emnist' / config / '3.1.0'
    version.mkdir(parents=True)
    (version / 'dataset_info.json').touch()
  found = prepared.find('emnist/letters', tmp_path)
  assert found == tmp_path / 'emnist' / 'letters' / '3.1.0'
  with pytest.raises(DataError, match='emnist/digits, emnist/letters'):
    prepared.find('emnist', tmp_path)
  shutil.rmtree(tmp_path / 'emnist' / 'digits')
  assert prepared.find('emnist', tmp_path) == found


@pytest.mark.filterwarnings('ignore')
def test_splits_and_their_parts_are_checked(tmp_path):
  write_set(tmp_path)
  builder = prepared.open_set('tiny', tmp_path)
  prepared.check_splits(builder, ['train', 'train[:50%]', 'train+test'])
  with pytest.raises(DataError, match=r'no split .validation.*train, test'):
    prepared.check_splits(builder, ['validation'])
  with pytest.raises(DataError, match='is empty'):
    prepared.check_splits(builder, ['train[:0]'])


@pytest.mark.slow
@pytest.mark.skipif(
  'TFDS_DATA_DIR' not in os.environ,
  reason='needs prepared data sets: set TFDS_DATA_DIR to their directory',
)
@pytest.mark.parametrize(
  ('name', 'shape', 'train', 'test'),
  [
    ('mnist', (28, 28, 1), 60_000, 10_000),
    ('cifar10', (32, 32, 3), 50_000, 10_000),
  ],
)
def test_reads_real_sets(name, shape, train, test):
  data = load_dataset(name)
  assert data.train_images.shape == (train, *shape)
  assert data.test_images.shape == (test, *shape)
  assert set(data.train_labels) == set(range(10))
  assert 20 < data.train_images.mean() < 140


@pytest.mark.skipif(
  'TFDS_DATA_DIR' not in os.environ,
  reason='needs prepared data sets: set TFDS_DATA_DIR to their directory',
)
def test_parts_of_a_set_are_trained_and_evaluated_on():
  part = load_dataset('mnist', None, 'train[:500]', 'train[500:600]')
  whole = load_dataset('mnist')
  np.testing.assert_array_equal(part.train_images, whole.train_images[:500])
  np.testing.assert_array_equal(part.test_labels, whole.train_labels[500:600])
  with pytest.raises(DataError, match='splits are train, test'):
    load_dataset('mnist', None, 'training')
  with pytest.raises(DataError, match='leave out'):
    load_dataset('digits', None, 'train[:100]')


@pytest.mark.skipif(
  'TFDS_DATA_DIR' not in os.environ,
  reason='needs prepared data sets: set TFDS_DATA_DIR to their directory',
)
def test_a_set_without_training_pictures_says_how_to_use_its_parts():
  config = TrainConfig(
    data='imagenet2012', image_size=32, batch_size=8, epochs=1
  )
  with pytest.raises(DataError, match='--train-split'):
    make_source(config)
  parts = dataclasses.replace(
    config, train_split='validation[:32]', test_split='validation[32:40]'
  )
  source = make_source(parts)
  assert source.steps_per_epoch == 4
  assert source.pictures(8).shape == (8, 32, 32, 3)
