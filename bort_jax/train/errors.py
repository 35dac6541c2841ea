"""Errors that a person can mend; the command line prints them as they are."""


class RunError(Exception):
  """Something about a run that its user can put right; says how."""


class DataError(RunError):
  """A data set that cannot be used."""


class DivergedError(RunError):
  """Training that left the finite numbers."""


class PreemptedError(RunError):
  """A run that was asked to stop; it is saved and can go on."""
