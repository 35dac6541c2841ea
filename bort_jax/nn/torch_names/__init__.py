"""Where each parameter of a network is found in PyTorch's file of weights.

One module per family, each with one function from a network to its rules, e.g.
``resnet_names(model) -> list[Rule]``. A :class:`Rule` fills one whole array of
ours (a parameter or a running statistic) from one array of the file, or from a
part of it: where PyTorch fuses what we keep apart, several rules name the same
array and take their slices of it. An array of the file that no rule names and
an array of ours that no rule fills are both errors, so a family lists all it
has.

:func:`bort_jax.nn.from_torch` applies the rules. To add a family, write its
function here and name it in ``from_torch``'s table.

Examples:
  A fused projection (3·D, D) that we keep as three kernels (D, D):

  >>> import numpy as np
  >>> from bort_jax.nn.torch_names import Rule
  >>> query = Rule(
  ...   'blocks.0.attn.qkv.weight',
  ...   'blocks/0/attention/query/kernel',
  ...   lambda w: np.split(w, 3)[0].T,
  ... )
  >>> query.transform(np.zeros((12, 4))).shape
  (4, 4)
"""

from bort_jax.nn.torch_names.rule import Rule as Rule
from bort_jax.nn.torch_names.rule import batch_norm as batch_norm
from bort_jax.nn.torch_names.rule import conv as conv
from bort_jax.nn.torch_names.rule import linear as linear
