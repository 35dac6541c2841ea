"""The error of running a network backwards."""


class InversionError(ValueError):
  """A function, value or setting that cannot be run backwards, and why."""
