"""What the command says."""

import pathlib

import bort_jax.report.command


def test_the_path_is_told_letter_by_letter(monkeypatch, capsys):
  path = pathlib.Path('runs/[seed0]/[/]', 150 * 'x', 'report.html')
  monkeypatch.setattr(bort_jax.report.command, 'explain', lambda *_, **__: path)
  bort_jax.report.command.explain_command(path.parent)
  assert capsys.readouterr().out == f'The report is in {path}.\n'
