"""The error of a glass-box model."""


class GlassBoxError(ValueError):
  """Pictures, labels or a setting that a glass box cannot use, and why."""
