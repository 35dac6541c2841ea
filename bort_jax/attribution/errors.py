"""The error of explaining a network."""


class AttributionError(ValueError):
  """A network, picture, class or setting that cannot be explained, and why."""
