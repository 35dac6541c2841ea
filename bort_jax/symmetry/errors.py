"""The error of moving pictures about."""


class SymmetryError(ValueError):
  """A picture that a group cannot act on, or a setting, and why."""
