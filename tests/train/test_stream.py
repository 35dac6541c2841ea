"""Large sets streamed: their order, their pictures, and what can go wrong."""

import collections
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import PIL.Image
import pytest
from run_helpers import Interrupt, Interrupting

from bort_jax.train import TrainConfig, pictures, train
from bort_jax.train.errors import DataError
from bort_jax.train.stream import ImageStream

pytest.importorskip('grain')
TRAIN, TEST = 23, 11


def picture(index, split):
  """A picture of its own size and colour model, striped in two colours."""
  rng = np.random.default_rng((index, split == 'train'))
  height, width = rng.integers(20, 60, 2)
  pixels = rng.integers(0, 256, (1, 1, 3)).repeat(height, 0).repeat(width, 1)
  pixels[: height // 3] = 255 - pixels[: height // 3]
  return PIL.Image.fromarray(pixels.astype(np.uint8))


def encoded(index, split):
  mode, file_format = (
    ('RGB', 'JPEG'),
    ('L', 'JPEG'),
    ('CMYK', 'JPEG'),
    ('P', 'PNG'),
    ('RGBA', 'PNG'),
  )[index % 5]
  file = io.BytesIO()
  picture(index, split).convert(mode).save(file, file_format)
  return file.getvalue()


def write_set(directory, damaged=()):
  """Writes a set of pictures of many sizes; the label is the index."""
  import tensorflow_datasets as tfds

  def examples(split, count):
    for i in range(count):
      data = b'not a picture' if i in damaged else encoded(i, split)
      yield i, {'image': io.BytesIO(data), 'label': i}

  class Many(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')
    name = 'many'

    def _info(self):
      features = {
        'image': tfds.features.Image(shape=(None, None, 3)),
        'label': tfds.features.ClassLabel(num_classes=TRAIN),
      }
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      del dl_manager
      return {
        'train': examples('train', TRAIN),
        'test': examples('test', TEST),
      }

    def _generate_examples(self):
      yield from ()

  Many(
    data_dir=str(directory), file_format='array_record'
  ).download_and_prepare()


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  import warnings

  directory = tmp_path_factory.mktemp('tfds')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of TFDS's writers
    write_set(directory)
  return directory


def training(data_dir, image_size=16, batch_size=6, seed=5, **options):
  return ImageStream(
    'many',
    'train',
    data_dir,
    image_size=image_size,
    batch_size=batch_size,
    seed=seed,
    **options,
  )


def evaluation(data_dir, image_size=16, batch_size=4, **options):
  return ImageStream(
    'many',
    'test',
    data_dir,
    image_size=image_size,
    batch_size=batch_size,
    train=False,
    **options,
  )


def take(stream, count):
  return [next(stream) for _ in range(count)]


def same(a, b):
  for x, y in zip(a, b, strict=True):
    for left, right in zip(x, y, strict=True):
      np.testing.assert_array_equal(left, right)


def test_an_epoch_visits_pictures_once_in_an_order_of_its_own(data_dir):
  with training(data_dir) as stream:
    assert stream.num_pictures == TRAIN
    assert stream.num_classes == TRAIN
    assert stream.steps_per_epoch == 3
    batches = take(stream, 9)
  assert {b.images.shape for b in batches} == {(6, 16, 16, 3)}
  assert {str(b.images.dtype) for b in batches} == {'uint8'}
  assert {str(b.labels.dtype) for b in batches} == {'int32'}
  assert all(b.mask.all() for b in batches)
  labels = np.concatenate([b.labels for b in batches]).reshape(3, 18)
  assert [len(set(epoch)) for epoch in labels] == [18, 18, 18]
  assert len({tuple(epoch) for epoch in labels}) == 3
  # The rest that is left out differs too.
  assert len(set(labels.ravel())) > 18


def test_the_seed_alone_decides(data_dir):
  with training(data_dir) as a, training(data_dir) as b:
    first = take(a, 4)
    same(first, take(b, 4))
  with training(data_dir, seed=6) as other:
    assert [b.labels.tolist() for b in take(other, 4)] != [
      b.labels.tolist() for b in first
    ]


def test_crops_differ_between_epochs(data_dir):
  with training(data_dir, batch_size=TRAIN) as stream:
    first, second = (b.images[np.argsort(b.labels)] for b in take(stream, 2))
  assert np.mean(np.any(first != second, axis=(1, 2, 3))) > 0.5


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize('count', [2, 3])
def test_the_processes_parts_are_the_whole_batch(data_dir, train, count):
  make = training if train else evaluation
  whole = take(make(data_dir, batch_size=6), 2)
  parts = [
    take(make(data_dir, batch_size=6, process_index=i, process_count=count), 2)
    for i in range(count)
  ]
  for step in range(2):
    for field in range(3):
      together = np.concatenate([part[step][field] for part in parts])
      np.testing.assert_array_equal(together, whole[step][field])


@pytest.mark.parametrize('count', [1, 2, 4])
def test_evaluation_counts_each_picture_once_over_all_processes(
  data_dir, count
):
  labels, steps = [], set()
  for i in range(count):
    with evaluation(data_dir, process_index=i, process_count=count) as stream:
      batches = list(stream)
    steps.add(len(batches))
    for images, y, mask in batches:
      assert len(images) == len(y) == len(mask) == 4 // count
      labels.extend(y[mask])
      assert not images[~mask].any()
  assert steps == {3}
  assert sorted(labels) == list(range(TEST))


def test_evaluation_passes_begin_anew(data_dir):
  with evaluation(data_dir) as stream:
    first = list(stream)
    same(first, list(stream))
    for _ in stream:
      break
    same(first, list(stream))
    next(iter(stream))
    same(first[1:], take(stream, 2))
    with pytest.raises(StopIteration):
      next(stream)


def expected_evaluation(index, size):
  """Resized so that the shorter side is 256/224 of the size, then cut."""
  decoded = PIL.Image.open(io.BytesIO(encoded(index, 'test'))).convert('RGB')
  short = round(size * 256 / 224)
  width, height = decoded.size
  if width < height:
    width, height = short, int(short * height / width)
  else:
    width, height = int(short * width / height), short
  resized = decoded.resize((width, height), PIL.Image.Resampling.BILINEAR)
  top, left = round((height - size) / 2), round((width - size) / 2)
  return np.asarray(resized)[top : top + size, left : left + size]


def test_evaluation_pictures_are_those_of_the_published_protocol(data_dir):
  with evaluation(data_dir, batch_size=TEST, image_size=28) as stream:
    images, labels, _ = next(stream)
  for image, label in zip(images, labels, strict=True):
    np.testing.assert_array_equal(image, expected_evaluation(label, 28))


@pytest.mark.parametrize('index', range(5))
def test_every_colour_model_becomes_plain_colour(data_dir, index):
  with evaluation(data_dir, batch_size=TEST) as stream:
    images, labels, _ = next(stream)
  image = images[list(labels).index(index)].astype(int)
  plain = picture(index, 'test')
  if index == 1:  # stored in grey
    plain = plain.convert('L').convert('RGB')
  # JPEG and palettes shift the colours a little.
  assert np.abs(image[-1, 8] - np.asarray(plain)[-1, 0]).max() < 30


@pytest.mark.parametrize('size', [(50, 40), (300, 4), (3, 200), (1, 1)])
def test_random_crops_are_inside_and_of_the_published_shapes(size):
  width, height = size
  rng = np.random.default_rng(0)
  boxes = [pictures.random_crop_box(rng, width, height) for _ in range(500)]
  for left, upper, right, lower in boxes:
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height
  if size == (50, 40):
    w, h = (np.array([b[i + 2] - b[i] for b in boxes]) for i in (0, 1))
    assert 0.05 < (w * h / 2000).min() < 0.12
    assert (w * h / 2000).max() > 0.9
    assert 0.65 < (w / h).min() < 0.8
    assert 1.25 < (w / h).max() < 1.55
    corners = collections.Counter(b[:2] for b in boxes)
    assert len(corners) > 150


def test_a_random_crop_is_resized_and_mirrored_every_second_time():
  image = PIL.Image.fromarray(
    np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
  )
  mirrored = 0
  for seed in range(100):
    got = pictures.random_resized_crop(np.random.default_rng(seed), image, 12)
    box = pictures.random_crop_box(np.random.default_rng(seed), 40, 30)
    plain = np.asarray(
      image.crop(box).resize((12, 12), PIL.Image.Resampling.BILINEAR)
    )
    is_plain, is_mirrored = (
      np.array_equal(got, x) for x in (plain, plain[:, ::-1])
    )
    assert is_plain != is_mirrored
    mirrored += is_mirrored
  assert 30 < mirrored < 70


def test_a_restored_stream_goes_on_bit_for_bit(data_dir):
  with training(data_dir) as stream:
    take(stream, 4)  # in the second epoch
    state = json.loads(json.dumps(stream.state()))
    assert stream.step == state['step'] == 4
    expected = take(stream, 5)
  with training(data_dir) as resumed:
    resumed.restore(state)
    same(take(resumed, 5), expected)
    resumed.restore(state)  # back again
    same(take(resumed, 2), expected[:2])
  with training(data_dir, start_step=4) as resumed:
    same(take(resumed, 5), expected)


@pytest.mark.parametrize(
  ('options', 'key'),
  [({'batch_size': 5}, 'batch_size'), ({'seed': 1}, 'seed')],
)
def test_the_state_of_another_stream_is_refused(data_dir, options, key):
  state = training(data_dir).state()
  with pytest.raises(DataError, match=f'its {key} is'):
    training(data_dir, **options).restore(state)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'batch_size': 24}, 'An epoch would have no batch'),
    ({'batch_size': 0}, 'batch_size must be ≥ 1'),
    ({'image_size': 0}, 'image_size must be ≥ 1'),
    ({'seed': -1}, 'seed must be ≥ 0'),
    ({'num_workers': -1}, 'num_workers must be ≥ 0'),
    ({'start_step': -1}, 'start_step must be ≥ 0'),
    ({'process_count': 4}, 'cannot be divided among 4 processes'),
    ({'process_index': 1}, 'process_index must be below'),
  ],
)
def test_numbers_out_of_range_are_refused(data_dir, options, message):
  with pytest.raises(DataError, match=message):
    training(data_dir, **options)


def test_sets_and_splits_that_are_not_there_are_refused(data_dir):
  with pytest.raises(DataError, match='bort-jax prepare other'):
    ImageStream('other', 'train', data_dir, image_size=8, batch_size=2)
  with pytest.raises(DataError, match='no split .validation.*train, test'):
    ImageStream('many', 'validation', data_dir, image_size=8, batch_size=2)


def test_a_part_of_a_split_is_a_split(data_dir):
  with ImageStream(
    'many', 'train[:5]', data_dir, image_size=8, batch_size=5, train=False
  ) as stream:
    images, labels, mask = next(stream)
  assert stream.num_pictures == len(images) == len(set(labels)) == mask.sum()


@pytest.mark.filterwarnings('ignore')
def test_a_damaged_picture_is_named(tmp_path):
  write_set(tmp_path, damaged=[3])
  with (
    evaluation(tmp_path) as stream,
    pytest.raises(DataError, match='Picture .* of test .* cannot be decoded'),
  ):
    list(stream)


def test_without_grain_it_says_what_to_install(data_dir, monkeypatch):
  monkeypatch.setitem(sys.modules, 'grain', None)
  with pytest.raises(DataError, match='pip install "bort-jax'):
    next(training(data_dir))


def children():
  """The processes that this one has started by spawning."""
  import multiprocessing

  return [child.pid or 0 for child in multiprocessing.active_children()]


@pytest.mark.slow
def test_workers_give_the_same_stream_and_their_death_is_named(data_dir):
  with training(data_dir) as stream:
    expected = take(stream, 12)
  before = set(children())
  with training(data_dir, num_workers=2) as stream:
    same(take(stream, 5), expected[:5])
    state = stream.state()
    workers = set(children()) - before
    assert len(workers) == 2
    # A job that is ended signals all its processes: the main one decides.
    for pid in workers:
      os.kill(pid, signal.SIGTERM)
      os.kill(pid, signal.SIGINT)
    same(take(stream, 4), expected[5:9])
    for pid in workers:
      os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(DataError, match=r'worker .* has died .*exit code -9'):
      take(stream, 20)
    assert time.monotonic() - began < 60
    # With another number of workers, from the state before.
  with training(data_dir, num_workers=1) as resumed:
    resumed.restore(state)
    same(take(resumed, 4), expected[5:9])
  assert set(children()) <= before


@pytest.mark.slow
def test_a_damaged_picture_is_named_by_a_worker_too(tmp_path):
  import warnings

  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    write_set(tmp_path, damaged=[3])
  with (
    evaluation(tmp_path, num_workers=1) as stream,
    pytest.raises(DataError, match='cannot be decoded'),
  ):
    list(stream)


@pytest.mark.slow
def test_workers_end_when_the_main_process_is_killed(data_dir, tmp_path):
  script = tmp_path / 'main.py'
  script.write_text(
    textwrap.dedent(f"""
      import multiprocessing, os, signal
      from bort_jax.train.stream import ImageStream

      if __name__ == '__main__':
        stream = ImageStream(
          'many', 'train', {str(data_dir)!r}, image_size=8, batch_size=2,
          num_workers=2,
        )
        next(stream)
        pids = [child.pid for child in multiprocessing.active_children()]
        print(*pids, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
  )
  # Not to a pipe, which would stay open as long as a worker lives.
  with (tmp_path / 'out').open('w') as out:
    process = subprocess.run([sys.executable, script], stdout=out, timeout=300)
  assert process.returncode == -signal.SIGKILL
  pids = (tmp_path / 'out').read_text().split()
  assert len(pids) == 2
  deadline = time.monotonic() + 30
  while alive := [p for p in pids if pathlib.Path('/proc', p).exists()]:
    assert time.monotonic() < deadline, f'{alive} are still running'
    time.sleep(0.1)


@pytest.mark.slow
def test_a_program_ends_in_silence_though_it_left_a_stream_open(
  data_dir, tmp_path
):
  script = tmp_path / 'main.py'
  script.write_text(
    textwrap.dedent(f"""
      from bort_jax.train.stream import ImageStream

      if __name__ == '__main__':
        stream = ImageStream(
          'many', 'train', {str(data_dir)!r}, image_size=8, batch_size=2,
          num_workers=1,
        )
        batch = next(stream)
        print(batch.images.shape)
    """)
  )
  process = subprocess.run(
    [sys.executable, script], capture_output=True, text=True, timeout=300
  )
  assert process.returncode == 0
  assert process.stdout == '(2, 8, 8, 3)\n'
  assert process.stderr == ''


@pytest.mark.skipif(
  'TFDS_DATA_DIR' not in os.environ,
  reason='needs prepared data sets: set TFDS_DATA_DIR to their directory',
)
def test_streams_imagenet():
  with ImageStream(
    'imagenet2012', 'validation', image_size=64, batch_size=50, train=False
  ) as stream:
    assert stream.num_classes == 1000
    images, labels, mask = next(stream)
  assert images.shape == (50, 64, 64, 3)
  assert mask.all()
  assert len(set(labels)) > 25
  assert 90 < images.mean() < 140


@pytest.mark.slow
def test_a_streamed_run_goes_on_bit_for_bit(data_dir, tmp_path):
  def run(name, listener=None, **options):
    config = TrainConfig(
      run_dir=tmp_path / name,
      data='many',
      data_dir=data_dir,
      image_size=16,
      batch_size=6,
      epochs=2,
      model_options=('widths=(4,6,8,10,12)',),
      compare=False,
      checkpoint_steps=1,
      devices=1,
      **options,
    )
    train(config, listener)

  run('whole')
  with pytest.raises(Interrupt):
    # within the second epoch of three steps
    run('stopped', Interrupting('bort', 5))
  run('stopped', resume=True)
  whole, stopped = (
    (tmp_path / name / 'metrics.jsonl').read_text()
    for name in ('whole', 'stopped')
  )
  assert whole.count('"loss"') == 6
  assert stopped == whole
