"Everything public: `from onenip.all import *` (the one file here that is written by hand)"
from fastcore.foundation import L
from .data import *
from .features import *
from .cache import *
from .encoder import *
from .decoder import *
from .synthesis import *
from .refiner import *
from .model import *
from .prompts import *
from .recipes import *
from .training import *
from .inference import *
from .neighbours import *
from .metrics import *
from .evaluation import *
from .report import *
