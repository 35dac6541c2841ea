"""Networks, in Flax NNX."""

from bort_jax.nn import bcos as bcos
from bort_jax.nn import glassbox as glassbox
from bort_jax.nn.all_conv import AllConv12 as AllConv12
from bort_jax.nn.cifar_resnet import CifarResNet as CifarResNet
from bort_jax.nn.from_torch import from_torch as from_torch
from bort_jax.nn.functional import functional as functional
from bort_jax.nn.logit_scale import LogitScale as LogitScale
from bort_jax.nn.patch_net import PatchNet as PatchNet
from bort_jax.nn.registry import create as create
from bort_jax.nn.registry import network_class as network_class
from bort_jax.nn.registry import network_names as network_names
from bort_jax.nn.resnet import ResNet as ResNet
from bort_jax.nn.simple_cnn import SimpleCNN as SimpleCNN
from bort_jax.nn.small_alexnet import SmallAlexNet as SmallAlexNet
from bort_jax.nn.swin import Swin as Swin
from bort_jax.nn.vgg import VGG16 as VGG16
from bort_jax.nn.vit import ViT as ViT
