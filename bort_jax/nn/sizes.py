"""What networks ask of the size of pictures."""

from collections.abc import Sequence


def check_least_side(
  network: str,
  image_shape: Sequence[int],
  least: int,
  remedy: str = 'Resize the pictures.',
) -> None:
  """Raises ValueError where a side of the pictures is too short.

  Args:
    network: its name.
    image_shape: (height, width, channels).
    least: pixels that a side has at least.
    remedy: what to do.
  """
  height, width, _ = image_shape
  if min(height, width) < least:
    raise ValueError(
      f'{network} needs pictures of {least}×{least} pixels or more, got'
      f' {height}×{width}. {remedy}'
    )
