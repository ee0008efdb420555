"What the benchmarks share: taking turns, the log, and the peak of the machine."
import argparse, json, os, platform, subprocess, time
from pathlib import Path

import numpy as np
import torch

LOG = Path(__file__).resolve().parent.parent/'nbs/experiments/speed.jsonl'


def parser(doc, **kw):
    "The options that all benchmarks have"
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--threads', type=int, default=1)
    p.add_argument('--device', default='cpu', help="'cpu' or 'cuda'")
    p.add_argument('--rounds', type=int, default=kw.get('rounds', 7), help='turns of each candidate, beside one to warm up')
    p.add_argument('--log', type=Path, default=LOG, help='file that gets a line a result')
    return p


def setup(args):
    "The device, with the number of threads set; a process has no more cores than that, so that reading ahead is no advantage"
    torch.set_num_threads(args.threads)
    if args.device == 'cpu' and hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:args.threads])
    if args.device == 'cuda' and not torch.cuda.is_available(): raise SystemExit('no GPU is at hand: run with --device cpu, or on a machine that has one')
    return torch.device(args.device)


def machine(device):
    "Name of the processor or GPU; a processor's with the widest instructions that torch uses"
    if device.type == 'cuda': return torch.cuda.get_device_name(device)
    info = Path('/proc/cpuinfo')
    names = [line.split(':')[1].strip() for line in info.read_text().splitlines() if line.startswith('model name')] if info.exists() else []
    return f'{names[0] if names else platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}'


def take_turns(candidates, rounds, device=torch.device('cpu')):
    "Name → wall and processor seconds of each of `rounds` calls; candidates take turns, so that other load meets all of them"
    times = {name: dict(wall=[], cpu=[]) for name in candidates}
    order = list(candidates.items())
    for turn in range(rounds+1):
        for name, f in order[turn%len(order):]+order[:turn%len(order)]:      # nobody always comes after the same one
            wall, cpu = time.perf_counter(), time.process_time()
            f()
            if device.type == 'cuda': torch.cuda.synchronize()
            if turn: times[name]['wall'].append(time.perf_counter()-wall); times[name]['cpu'].append(time.process_time()-cpu)
    return times


def report(args, device, bench, case, times, against='reference', n=1, unit='s', **more):
    "Print medians per item and ratios, and add a line to the log"
    mid = {name: {k: float(np.median(v))/n for k, v in t.items()} for name, t in times.items()}
    scale = dict(s=1, ms=1e3)[unit]
    for name, t in mid.items():
        ratio = {k: mid[against][k]/t[k] if t[k] else float('nan') for k in t}
        print(f"{bench}, {case}, {args.threads} threads, {device.type}: {name:24} {t['wall']*scale:9.3f} {unit} wall ({ratio['wall']:.2f} times), "
              f"{t['cpu']*scale:9.3f} {unit} of processor ({ratio['cpu']:.2f} times)", flush=True)
    log(args, device, bench, case=case, against=against, seconds=mid, load=os.getloadavg()[0] if hasattr(os, 'getloadavg') else None, **more)


def log(args, device, bench, **fields):
    "Add a line to the log"
    commit = subprocess.run(['git', 'describe', '--always', '--dirty'], capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    line = dict(bench=bench, device=device.type, machine=machine(device), cores=os.cpu_count(), threads=args.threads, torch=torch.__version__, commit=commit,
                date=time.strftime('%Y-%m-%d'), **fields)
    args.log.parent.mkdir(exist_ok=True)
    with args.log.open('a') as f: f.write(json.dumps(line)+'\n')


def peak(device, dtype, n=2048, rounds=7):
    "Floating-point operations a second (of processor time on a CPU) in a product of two n×n matrices: the best of some"
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    times = take_turns(dict(product=lambda: a@b), rounds, device)['product']
    return 2*n**3/min(times['cpu' if device.type == 'cpu' and torch.get_num_threads() == 1 else 'wall'])
