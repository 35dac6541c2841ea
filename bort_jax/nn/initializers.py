"""How kernels start, where several networks agree."""

from flax import nnx

he_normal_fan_out = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')
# What PyTorch draws for a dense layer, and so torchvision for a head.
uniform_fan_in = nnx.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
