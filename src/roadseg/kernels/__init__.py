"""What torch computes slowly in training on a CPU, in C++: autograd functions, each with a C++ file of its name.

torch goes over the maps once for each of the operations that a norm, an activation, a softmax and their gradients
consist of. Ask `usable` first; where it says no, torch's own are to be used.

Milliseconds, forwards and backwards, of a batch of 4 on two threads of an AMD EPYC, family 26 (AVX512-BF16), torch
2.13.0, g++ 12:

| | CxHxW | torch's | here |
|---|---|---|---|
| `Norm` with a ReLU, bfloat16 | 64x90x120 | 2.0 | 1.2 |
| `Norm` with a PReLU, bfloat16 | 64x90x120 | 10.6 | 1.2 |
| `Norm` with a ReLU, bfloat16 | 4x180x240 | 4.6 | 0.4 |
| `PReLU`, bfloat16 | 64x90x120 | 8.9 | 0.6 |
| `CrossEntropy` | 11x360x480 | 11.4 | 5.8 |
| `Regions` | 11x360x480 | 30 | 7 |

Likewise on family 25:

| | CxHxW | torch's | here |
|---|---|---|---|
| `Norm` with Dropout2d, a shortcut and a PReLU, bfloat16 | 64x90x120 | 13.1 | 2.1 |
| `CrossEntropy` of logits that are enlarged | from 11x45x60 to 11x360x480 | 36 | 8 |
| `Regions` of logits that are enlarged | from 11x45x60 to 11x360x480 | 52 | 9 |
"""

from roadseg.kernels import maps
from roadseg.kernels.cross_entropy import CrossEntropy
from roadseg.kernels.library import build, compiled, usable
from roadseg.kernels.norm import Norm
from roadseg.kernels.prelu import PReLU
from roadseg.kernels.regions import Regions

__all__ = ["CrossEntropy", "Norm", "PReLU", "Regions", "build", "compiled", "maps", "usable"]
