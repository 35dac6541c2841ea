"""Names of timm's vision transformers, DeiT among them."""

from functools import partial

import numpy as np

from bort_jax.nn.torch_names import Rule, conv, linear
from bort_jax.nn.vit import ViT


def vit_names(model: ViT) -> list[Rule]:
  """Where timm keeps the parameters of a vision transformer.

  timm's ``attn.qkv`` stacks query, key and value over its output axis; here
  each has a kernel of its own. A network of mean pooling corresponds to timm's
  with ``class_token=False, global_pool='avg', fc_norm=False``.

  Args:
    model: the network to be filled.

  Returns:
    One rule for each of its parameters but the logit scale, which timm has not.

  Examples:
    >>> from flax import nnx
    >>> from bort_jax.nn.torch_names.vit import vit_names
    >>> from bort_jax.nn.vit import ViT
    >>> model = ViT((8, 8, 3), 10, patch_size=4, depth=1, rngs=nnx.Rngs(0))
    >>> [rule.torch for rule in vit_names(model)][1:4]
    ['patch_embed.proj.bias', 'pos_embed', 'cls_token']
  """
  rules = conv('patch_embed.proj', 'patch_embed', bias=True)
  rules += [Rule('pos_embed', 'position_embedding', _same)]
  if model.class_token is not None:
    rules += [Rule('cls_token', 'class_token', _same)]
  for index in range(len(model.blocks)):
    rules += _block(f'blocks.{index}', f'blocks/{index}')
  return rules + _layer_norm('norm', 'norm') + linear('head', 'head')


def _block(torch: str, ours: str) -> list[Rule]:
  return [
    *_layer_norm(f'{torch}.norm1', f'{ours}/norm1'),
    *_fused(f'{torch}.attn.qkv', f'{ours}/attention'),
    *linear(f'{torch}.attn.proj', f'{ours}/attention/out'),
    *_layer_norm(f'{torch}.norm2', f'{ours}/norm2'),
    *linear(f'{torch}.mlp.fc1', f'{ours}/mlp/fc1'),
    *linear(f'{torch}.mlp.fc2', f'{ours}/mlp/fc2'),
  ]


def _fused(torch: str, ours: str) -> list[Rule]:
  rules = []
  for part, name in enumerate(('query', 'key', 'value')):
    take = partial(_third, part=part)
    rules += [
      Rule(f'{torch}.weight', f'{ours}/{name}/kernel', take),
      Rule(f'{torch}.bias', f'{ours}/{name}/bias', take),
    ]
  return rules


def _third(x: np.ndarray, part: int) -> np.ndarray:
  return np.split(x, 3)[part].T


def _layer_norm(torch: str, ours: str) -> list[Rule]:
  return [
    Rule(f'{torch}.weight', f'{ours}/scale', _same),
    Rule(f'{torch}.bias', f'{ours}/bias', _same),
  ]


def _same(x: np.ndarray) -> np.ndarray:
  return x
