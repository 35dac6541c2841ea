"""The error of judging an explanation."""


class MetricError(ValueError):
  """Maps, pictures or a setting that cannot be judged, and why."""
