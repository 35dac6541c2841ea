"""The page that ``bort-jax explain`` writes."""

from bort_jax.report.explain import explain as explain
from bort_jax.report.pictures import read_pictures as read_pictures
