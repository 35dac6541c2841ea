"""The error of attacking a network."""


class AttackError(ValueError):
  """Pictures, a network or a setting that cannot be attacked, and why."""
