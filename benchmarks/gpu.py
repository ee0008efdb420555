"""All benchmarks but that of the metrics on a GPU, with one command, and what they say of a training as long as the paper's.

    python benchmarks/gpu.py                                                  # the log gets their lines

Nothing here was ever run on a GPU by whoever wrote it: none was at hand. The projection is of 1,000 epochs of MVTec AD (3,629 normal images, b4 at 224 px,
batches of 64), from the images a second of the whole loop. The floor is 4.4 minutes on an H100 at 40 % of its bfloat16 peak with all features cached;
the aim is under 20.
"""
import json, os, subprocess, sys
from pathlib import Path

from common import LOG

IMAGES, EPOCHS = 3629, 1000
HERE = Path(__file__).resolve().parent


def run(script, *args):
    "Run a benchmark on the GPU"
    subprocess.run([sys.executable, str(HERE/script), *args, '--device', 'cuda'], check=True)


def main():
    known = len(LOG.read_text().splitlines()) if LOG.exists() else 0
    workers = str(max(1, (os.cpu_count() or 2)-2))
    run('training_step.py')
    run('parts.py')
    run('synthesis.py')
    run('loop.py', 'lite0', '--bs', '64', '--steps', '20', '--workers', workers)
    run('loop.py', 'b4', '--bs', '64', '--steps', '20', '--workers', workers)
    run('inference.py', 'quick')
    run('inference.py', 'paper')
    try: run('training_step.py', '--compile')                            # last: nothing else is lost where it fails
    except subprocess.CalledProcessError as e: print(f'torch.compile: {e}')
    loops = [o for o in map(json.loads, LOG.read_text().splitlines()[known:]) if o['bench'] == 'loop' and o['case'].startswith('b4')]
    for name, t in loops[-1]['seconds'].items():
        print(f'{name}: {1/t["wall"]:.0f} images a second, so {EPOCHS*IMAGES*t["wall"]/60:.0f} minutes for {EPOCHS:,} epochs of {IMAGES:,} images (aim: under 20, floor 4.4)')


if __name__ == '__main__': main()
