"""The accuracies that the paper prints, and the differences measured here.

The paper's numbers are those of its Fig. 1b: ImageNet, top-1 accuracy in per
cent without and with Bort, one run each.
"""

import json
import pathlib
from collections.abc import Sequence

from accuracy import names
from accuracy_tables import BORT, PLAIN, differences_of, lines_of
from runs_report import task_in, task_line, tested

PUBLISHED = (
  ('VGG16', 'sgd', 73.13, 73.36),
  ('VGG16', 'adamw', 64.66, 69.75),
  ('ResNet-50', 'sgd', 76.57, 77.60),
  ('ResNet-50', 'adamw', 76.91, 77.61),
  ('ResNet-50', 'lamb', 79.72, 79.90),
  ('DeiT-S', 'adamw', 79.79, 80.41),
  ('Swin-S', 'adamw', 82.63, 82.71),
)


def section(folder: pathlib.Path) -> str:
  """Markdown: published gains, and those of every kept accuracy experiment."""
  lines = [
    '| what | optimizer | Bort − plain | runs |',
    '| --- | --- | ---: | --- |',
  ]
  for network, optimizer, plain, bort in PUBLISHED:
    lines.append(
      f'| paper, Fig. 1b: ImageNet, {network} | {optimizer} |'
      f' {bort - plain:+.2f} | one each |'
    )
  for path in sorted(folder.glob('*/runs.jsonl')):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines += _measured(tested(rows))
  return '\n'.join(lines)


def _measured(rows: Sequence) -> list[str]:
  lines = []
  for task in dict.fromkeys(task_in(row['facts']) for row in rows):
    of_task = [row for row in rows if task_in(row['facts']) == task]
    arms = lines_of(of_task, names())
    seeds = {line.optimizer: len(line.accuracies) for line in arms}
    for (optimizer, way), apart in differences_of(arms, PLAIN).items():
      if way == BORT:
        lines.append(
          f'| here: {task_line(task)} | {optimizer} | {apart.text()} |'
          f' {seeds[optimizer]} pairs, 95 % |'
        )
  return lines
