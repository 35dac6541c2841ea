"""What the command says."""

import pathlib

import bort_jax.report.command


def test_the_path_is_told_letter_by_letter(monkeypatch, capsys):
  path = pathlib.Path('runs/[seed0]/[/]', 150 * 'x', 'report.html')
  monkeypatch.setattr(bort_jax.report.command, 'explain', lambda *_, **__: path)
  bort_jax.report.command.explain_command(path.parent)
  assert capsys.readouterr().out == f'The report is in {path}.\n'


def test_where_there_is_no_terminal_what_is_done_is_told_in_lines(
  monkeypatch, capsys
):
  def explain(run_dir, *, tell, **_):
    tell('restoring')
    return run_dir

  monkeypatch.setattr(bort_jax.report.command, 'explain', explain)
  bort_jax.report.command.explain_command(pathlib.Path('run'))
  out = capsys.readouterr().out
  assert out == 'restoring\nThe report is in run.\n'
