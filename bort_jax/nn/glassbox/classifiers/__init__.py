"""Analytical classifiers of rows, and two that are not."""

from bort_jax.nn.glassbox.classifiers.lda import LDA as LDA
from bort_jax.nn.glassbox.classifiers.logistic import Logistic as Logistic
from bort_jax.nn.glassbox.classifiers.mlp import MLP as MLP
from bort_jax.nn.glassbox.classifiers.named import CLASSIFIERS as CLASSIFIERS
from bort_jax.nn.glassbox.classifiers.neighbors import KNN as KNN
from bort_jax.nn.glassbox.classifiers.ridge import Ridge as Ridge
