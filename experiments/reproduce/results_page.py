r"""Collects every table of this folder into ``experiments/RESULTS.md``.

For each experiment: its question and commands, from the docstring of its file;
for each of its results: the commit that they came with, and the table itself,
which tells seeds, hardware and, in the newer ones, time. Long tables are linked
to. From the project's root:

    python experiments/reproduce/results_page.py
"""

import ast
import pathlib
import re
import subprocess

import published_gains

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / 'RESULTS.md'
_LONGEST = 60  # lines of a table that is shown
_FINDINGS = ('findings.md', 'README.md')
_FOREWORD = """# Results

Written by `python experiments/reproduce/results_page.py` from what the other \
commands of [reproduce/](reproduce) left there; not to be edited by hand. \
`DIR` is where `bort-jax prepare` put the data sets."""


def main() -> None:
  """Writes the page."""
  folders = sorted(path for path in HERE.iterdir() if _has_results(path))
  sections = [_FOREWORD, *map(section_of, folders)]
  sections += [
    '# Beside the paper',
    'What Fig. 1b of the paper says of accuracy, and what was measured here of'
    ' other, much smaller networks and data.',
    published_gains.section(HERE / 'accuracy'),
  ]
  sections.append((HERE / 'when_to_use.md').read_text().strip())
  PAGE.write_text('\n\n'.join(sections) + '\n')
  print(f'{len(folders)} experiments in {PAGE}')


def _has_results(path: pathlib.Path) -> bool:
  return path.is_dir() and path.name != '__pycache__'


def section_of(folder: pathlib.Path) -> str:
  """One experiment."""
  script = HERE / f'{folder.name}.py'
  if not script.exists():  # named by its data set
    script = HERE / 'comparison.py'
  text = ast.get_docstring(ast.parse(script.read_text())) or ''
  title = text.splitlines()[0].rstrip('.').replace('``', '`')
  parts = [
    f'## {folder.name}: {title}',
    '\n'.join(['```', *commands_in(text), '```']),
  ]
  parts += [
    f'[What was found]({_link(folder / name)}).'
    for name in _FINDINGS
    if (folder / name).exists()
  ]
  tables = sorted(folder.rglob('table.md'))
  for table in tables:
    parts.append(table_section(table, folder))
  if not tables:
    files = ', '.join(
      f'[{path.name}]({_link(path)})' for path in sorted(folder.iterdir())
    )
    parts.append(f'{files} ({_commit_of(folder)}).')
  return '\n\n'.join(parts)


def commands_in(docstring: str) -> list[str]:
  """The indented lines, without their indentation."""
  lines = [
    line.removeprefix('    ')
    for line in docstring.splitlines()
    if line.startswith('    ')
  ]
  return lines


def table_section(table: pathlib.Path, folder: pathlib.Path) -> str:
  """One table, or a link to it."""
  name = ', '.join(table.parent.relative_to(folder).parts) or folder.name
  head = f'### {name} ([table]({_link(table)}), {_commit_of(table)})'
  text = table.read_text().strip()
  if len(text.splitlines()) > _LONGEST:
    return f'{head}\n\n{len(text.splitlines())} lines: see there.'
  return f'{head}\n\n{within(text, table.parent)}'


def within(text: str, folder: pathlib.Path) -> str:
  """A table's text under a heading of the third level."""
  deeper = re.sub(r'^(#+)', r'##\1', text, flags=re.MULTILINE)
  return re.sub(
    r'\]\((?!http)([^)]+)\)',
    lambda match: f']({_link(folder / match[1])})',
    deeper,
  )


def _link(path: pathlib.Path) -> str:
  return path.relative_to(PAGE.parent).as_posix()


def _commit_of(path: pathlib.Path) -> str:
  done = subprocess.run(
    ['git', 'log', '-1', '--format=commit %h of %ad', '--date=short', path],
    cwd=HERE,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.strip() or 'not committed yet'


if __name__ == '__main__':
  main()
