"Check an installed onenip from outside its source: a light import, the whole interface, the pictures it brings."
import subprocess, sys
from importlib.resources import files
from pathlib import Path

import onenip

assert 'torch' not in sys.modules, '`import onenip` must not import torch'

from onenip.all import * # noqa: E402, F403

assets = files('onenip')/'assets'
pictures = list(Path(str(assets)).rglob('*.jpg'))
assert (assets/'hazelnut'/'ATTRIBUTION.md').is_file() and len(pictures) > 50, f'pictures are missing in {assets}'

command = Path(sys.executable).with_name('onenip')
subprocess.run([command, 'demo', '--help'], check=True, stdout=subprocess.DEVNULL)
print(f'onenip {onenip.__version__} from {Path(onenip.__file__).parent}: {len(pictures)} pictures, the command runs')
