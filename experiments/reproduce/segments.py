"""What a certificate says of each segment of ResNet-50 and ViT-S.

Prints the table of segments of untrained networks with orthogonal kernels, in
evaluation mode, for one of scikit-learn's two photographs. Writes into
``segments/``. From the project's root:

    python experiments/reproduce/segments.py
"""

import pathlib

import jax
import jax.numpy as jnp
import tyro
from flax import nnx

from bort_jax import inversion, nn

NETWORKS = {
  'resnet50': ((64, 64, 3), {}),
  'vit_s': ((64, 64, 3), {'patch_size': 16}),
}


def main(max_steps: int = 20) -> None:
  """Certifies both networks.

  Args:
    max_steps: most iterations in a segment to find out what is lost.
  """
  folder = pathlib.Path(__file__).parent / 'segments'
  folder.mkdir(exist_ok=True)
  for name, (shape, options) in NETWORKS.items():
    model = nn.create(
      name,
      image_shape=shape,
      num_classes=1000,
      kernel_init=nnx.initializers.orthogonal(),
      rngs=nnx.Rngs(0),
      **options,
    )
    model.eval()
    found = inversion.certificate(
      *nn.functional(model), photograph(shape), max_steps=max_steps
    )
    text = (
      f'{name}, {shape}, orthogonal kernels, untrained, {max_steps} steps\n\n'
      f'{found.table()}\n\n'
      f'whole network: {float(found.lower):.3g} ≤ L ≤ {float(found.upper):.3g},'
      f' lost energy {float(found.lost_energy[0]):.3g}, margin'
      f' {float(found.margin[0]):.3g}, radius {float(found.radius[0]):.3g}\n'
    )
    (folder / f'{name}.txt').write_text(text)
    print(text)


def photograph(shape: tuple[int, int, int]) -> jax.Array:
  """(1, H, W, 3) in 0 … 1."""
  from sklearn.datasets import load_sample_image

  picture = jnp.asarray(load_sample_image('china.jpg'), jnp.float32) / 255
  return jax.image.resize(picture, shape, 'linear', antialias=True)[None]


if __name__ == '__main__':
  tyro.cli(main)
