import sys; sys.dont_write_bytecode=True
sys.path.insert(0,'/work/main')
import time; t0=time.process_time()
import jax, jax.numpy as jnp, numpy as np
import bort_jax; print(bort_jax.__file__)
from bort_jax import inversion, nn
from bort_jax.inversion import certificate
from bort_jax.report.certify import left_out, not_undone
from bort_jax.report.methods import METHODS
from flax import nnx
apply_fn = lambda params, x: x * jnp.tanh(x @ params)
params = jax.random.normal(jax.random.key(0), (3, 3))
x = jnp.array([[0.2, 0.5, 0.9]])
full=certificate(apply_fn, params, x, newton_steps=100).segments[0]
k=int(full.newton_steps)
c=certificate(apply_fn, params, x, newton_steps=k)
print('needed',k,'lost full',full.lost_energy if hasattr(full,'lost_energy') else full, 'exact budget flagged', bool(left_out(METHODS,c,k)))
s=c.segments[0]
print([ (f, getattr(s,f)) for f in s.__dataclass_fields__][-4:])
layer = nn.bcos.BcosDense(4, 6, b=2.0, rngs=nnx.Rngs(0))
f,p=nn.functional(layer)
X = jax.random.uniform(jax.random.key(0), (2, 4), minval=0.2)
for st in (3,5,6,7,8,9,10,12,15,20,100):
  seg=inversion.reconstruct(f,p,X,newton_steps=st,linear_steps=5*st).segments[0]
  print('bcos',st,int(seg.newton_steps),float(seg.residual.max()))
# stagnation: many pictures
X = jax.random.uniform(jax.random.key(1), (10, 16))
layer = nn.bcos.BcosDense(16, 20, b=2.0, rngs=nnx.Rngs(1)); f,p=nn.functional(layer)
for st in (10,100):
  seg=inversion.reconstruct(f,p,X,newton_steps=st,linear_steps=5*st).segments[0]
  print('bcos16',st,int(seg.newton_steps),np.asarray(seg.residual).max())
# non finite collision
from bort_jax.inversion.invert import _nonfinite
print('collide',_nonfinite({'a':{'b':jnp.array(jnp.nan)},'a/b':jnp.array(1.)}))
# squaring: converge to wrong place
g=lambda p,x: x@p*jnp.sin(3*x@p)
P=jax.random.normal(jax.random.key(3),(5,5))
Y=jax.random.normal(jax.random.key(4),(2,5))
c=certificate(g,P,Y,newton_steps=60)
print('g',[(int(s.newton_steps)) for s in c.segments], c.lost_energy, bool(not_undone(c,60)))
seg=inversion.reconstruct(g,P,Y,newton_steps=60).segments
print([(int(s.newton_steps),np.asarray(s.residual)) for s in seg])
print('cpu',time.process_time()-t0)
