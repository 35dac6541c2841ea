"""B-cos networks: layers whose alignment explains what a network does.

A B-cos layer multiplies a linear map by a number, the power |cos|^(B−1) of the
angle between weights and input. With such numbers held, a whole network is one
linear map W(x) of its input, and W(x) explains the output exactly.

Layers name what is held by :func:`dynamic`; :func:`two_streams` reads the names
out of a network's operations and makes the linear map, as a pure function that
can be differentiated in everything. There is no explanation mode and no state,
and a network is defined once. :func:`explain` uses it.

Kernels are called ``kernel`` and have Flax's layout, so Bort's default rule
finds them. Where their rows are normalized, their lengths do not change what a
layer computes, and Bort's constraint is one on angles alone: it makes the units
of a layer look at orthogonal directions, and keeps lengths near √a. That is
meant: normalized kernels are constrained as all others are. The rule cannot
know grouped and depthwise kernels by their names; give ``axes`` for those.

Gradients are clipped, where the published recipe does it, by
``optax.adaptive_grad_clip(0.01)``, which computes the same but for kernels of
one-dimensional convolutions, which :mod:`bort_jax.train.adaptive_clip` knows.
"""

from bort_jax.nn.bcos.attention import BcosAttention as BcosAttention
from bort_jax.nn.bcos.bcosify import bcosify as bcosify
from bort_jax.nn.bcos.conv import BcosConv as BcosConv
from bort_jax.nn.bcos.convnext import BcosConvNeXt as BcosConvNeXt
from bort_jax.nn.bcos.dense import BcosDense as BcosDense
from bort_jax.nn.bcos.densenet import BcosDenseNet as BcosDenseNet
from bort_jax.nn.bcos.encoding import AddInverse as AddInverse
from bort_jax.nn.bcos.encoding import add_inverse as add_inverse
from bort_jax.nn.bcos.explain import Explanation as Explanation
from bort_jax.nn.bcos.explain import explain as explain
from bort_jax.nn.bcos.explain import explain_all as explain_all
from bort_jax.nn.bcos.from_torch import from_torch as from_torch
from bort_jax.nn.bcos.inception import BcosInceptionV3 as BcosInceptionV3
from bort_jax.nn.bcos.layers import BcosSettings as BcosSettings
from bort_jax.nn.bcos.logit_layer import LogitLayer as LogitLayer
from bort_jax.nn.bcos.losses import uniform_off_bce as uniform_off_bce
from bort_jax.nn.bcos.names import dynamic as dynamic
from bort_jax.nn.bcos.norm import Norm as Norm
from bort_jax.nn.bcos.picture import explanation_picture as explanation_picture
from bort_jax.nn.bcos.resnet import BcosCifarResNet as BcosCifarResNet
from bort_jax.nn.bcos.resnet import BcosResidualNetwork as BcosResidualNetwork
from bort_jax.nn.bcos.resnet import BcosResNet as BcosResNet
from bort_jax.nn.bcos.streams import TwoStreams as TwoStreams
from bort_jax.nn.bcos.streams import two_streams as two_streams
from bort_jax.nn.bcos.transform import published_scale as published_scale
from bort_jax.nn.bcos.vgg import BcosVGG11 as BcosVGG11
from bort_jax.nn.bcos.vit import BcosViT as BcosViT
