"""Parts of scikit-learn, imported where they are used."""

import importlib
from typing import Any

from bort_jax.nn.glassbox.errors import GlassBoxError


def imported(module: str, user: str) -> Any:
  """A module of scikit-learn, for a setting that needs it."""
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError:
    raise GlassBoxError(
      f'{user} needs scikit-learn, which is not installed: pip install'
      " 'bort-jax[train]'."
    ) from None
