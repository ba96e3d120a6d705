"""Neural operators, one paper a file."""

from physml.operators.ab_upt import ABUPT
from physml.operators.factformer import FactFormer
from physml.operators.ffno import FFNO
from physml.operators.fno import FNO
from physml.operators.operator import Operator
from physml.operators.persistence import Persistence
from physml.operators.unet import UNet

__all__ = ["ABUPT", "FFNO", "FNO", "FactFormer", "Operator", "Persistence", "UNet"]
