"""Run the notebooks as tests and count what ran.

    python tools/test.py                  all of nbs/, without the cells marked `#| slow` or `#| cuda`
    python tools/test.py 05 tutorials     notebooks whose path below nbs/ holds `05` or `tutorials`
    python tools/test.py --slow --cuda    the costly cells too

A test is a cell with an `assert` or a call of `test_...`. Skipped are test cells that did not run, and cells that
printed a line `skipped: reason`. Folders with a file `.notest` are left out, unless a notebook in one is given by path.
"""
import argparse, json, os, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from house import NBS, ROOT, notebooks, settings

LIMIT = 1800 # seconds for one notebook; the slowest take a third of it on two slow cores


def is_left_out(path):
    "Is there a `.notest` in the folder of the notebook at `path`, or in one above it?"
    return any((folder/'.notest').exists() for folder in path.parents if NBS in (folder, *folder.parents))


def select(patterns):
    "The notebooks to run: those at the paths given, and those whose path below nbs/ holds one of the `patterns`."
    given = [Path(o).resolve() for o in patterns if Path(o).is_file()]
    words = [o for o in patterns if not Path(o).is_file()]
    words = [Path(o).resolve().relative_to(NBS).as_posix() if Path(o).is_dir() else o for o in words]
    rest = [p for p in notebooks() if not is_left_out(p)]
    if patterns: rest = [p for p in rest if any(w == '.' or w in p.relative_to(NBS).as_posix() for w in words)]
    return sorted({*given, *rest})


def environment(workers):
    "The environment of one notebook's process: the processors shared out among the `workers`, no features of earlier runs, and no display."
    threads = str(max(1, (os.cpu_count() or 1)//workers))
    return {**os.environ, 'OMP_NUM_THREADS': threads, 'ONENIP_CACHE': 'off', 'MPLBACKEND': 'module://matplotlib_inline.backend_inline'}


def run_one(path, flags, env):
    "Run the notebook at `path` in a process of its own, without the cells marked by `flags`; its counts and time."
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        dest = Path(folder)/'result.json'
        command = [sys.executable, str(ROOT/'tools/run_nb.py'), str(path), str(dest), *flags]
        try: done = subprocess.run(command, env=env, timeout=LIMIT, capture_output=True, text=True)
        except subprocess.TimeoutExpired: error = f'no end after {LIMIT} s'
        else: error = f'the process ended with code {done.returncode}:\n{done.stderr[-3000:]}'
        lost = dict(passed=0, failed=1, skipped=0, reasons=[], error=error)
        result = json.loads(dest.read_text(encoding='utf-8')) if dest.exists() else lost
    return {**result, 'seconds': time.time()-start}


def report(path, result):
    "Print how the notebook at `path` fared."
    verdict = 'FAILED' if result['failed'] else 'ok'
    counts = ', '.join(f'{result[k]} {k}' for k in ('passed', 'failed', 'skipped') if result[k])
    name = path.relative_to(NBS) if NBS in path.parents else path
    print(f"{verdict:6} {result['seconds']:6.1f} s  {name}  ({counts or 'no tests'})", flush=True)
    for reason in result['reasons']: print(f'                 {reason}')
    if result['error']: print(f"{result['error'].rstrip()}\n", flush=True)


def run_all(paths, flags, workers):
    "Run the notebooks at `paths`, `workers` at a time, reporting each as it ends; all results."
    results = []
    with ThreadPoolExecutor(workers) as pool:
        jobs = {pool.submit(run_one, path, flags, environment(workers)): path for path in paths}
        for job in as_completed(jobs):
            report(jobs[job], job.result())
            results.append(job.result())
    return results


def parse():
    "The command line."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('patterns', nargs='*', help='paths of notebooks, or parts of them')
    for flag in settings()['tst_flags'].split(): parser.add_argument(f'--{flag}', action='store_true', help=f'run the cells marked `#| {flag}`')
    parser.add_argument('--workers', type=int, default=min(2, os.cpu_count() or 1), help='notebooks at a time (default %(default)s)')
    return parser.parse_args()


def main():
    "Run the tests; the last line has the counts. Exit code 1 if a test failed or none ran."
    args = parse()
    flags = [flag for flag in settings()['tst_flags'].split() if not getattr(args, flag)]
    results = run_all(select(args.patterns), flags, args.workers)
    passed, failed, skipped = (sum(r[k] for r in results) for k in ('passed', 'failed', 'skipped'))
    print(f'{passed} passed, {failed} failed' + (f', {skipped} skipped' if skipped else ''))
    sys.exit(1 if failed or not passed else 0)


if __name__ == '__main__': main()
