"Run one notebook as a test, in this process, and write what happened as JSON. Called by `tools/test.py`."
import json, os, sys, time, traceback
from pathlib import Path

from execnb.shell import CaptureShell

from house import NBS, ROOT, is_test, read_cells

MINUTE = 60 # seconds of a processor in which a page of experiments is drawn from its stored scores; what it runs from images has a process of its own


def is_skipped(cell, flags):
    "Is `cell` marked with one of the `flags` of costly cells, or never to be run?"
    return bool(flags & cell.directives_.keys()) or cell.directives_.get('eval:', [''])[0].lower() == 'false'


def skip_reasons(outputs):
    "The lines `skipped: reason` that a cell printed."
    text = ''.join(''.join(out['text']) for out in outputs if out['output_type'] == 'stream')
    return [line for line in text.splitlines() if line.startswith('skipped:')]


def describe(number, cell, error):
    "A readable account of the `error` in the `cell` with this `number`: its source, then the traceback without IPython's part."
    trace = error.__traceback__
    while trace and 'IPython' in trace.tb_frame.f_code.co_filename: trace = trace.tb_next
    source = '\n'.join(f'    | {line}' for line in cell.source.splitlines())
    return f"cell {number}:\n{source}\n{''.join(traceback.format_exception(type(error), error, trace))}"


def run_cells(path, flags):
    "Run the notebook at `path` without the cells marked by `flags`; count its test cells, and stop at the first error."
    result = dict(passed=0, failed=0, skipped=0, reasons=[], error='')
    shell = CaptureShell(path, mpl_format='png')
    for number, cell in enumerate(read_cells(path)):
        if cell.cell_type != 'code': continue
        if result['failed'] or is_skipped(cell, flags):
            result['skipped'] += is_test(cell)
            continue
        reasons = skip_reasons(shell.run(cell.source))
        if shell.exc: result.update(failed=1, error=describe(number, cell, shell.exc))
        elif reasons: result['skipped'] += 1
        else: result['passed'] += is_test(cell)
        result['reasons'] += reasons
    took = time.process_time()
    if NBS/'experiments' in path.parents and took > MINUTE and not result['failed']:
        result.update(failed=1, error=f'drawing the page took {took:.0f} seconds of a processor, more than {MINUTE}')
    return result


def main(path, dest, *flags):
    "Run the notebook at `path` in its own folder, as Jupyter does, and write the counts to `dest`."
    path = Path(path).resolve()
    sys.path[0] = str(ROOT)
    os.environ['IN_TEST'] = '1'
    os.chdir(path.parent)
    Path(dest).write_text(json.dumps(run_cells(path, set(flags))), encoding='utf-8')


if __name__ == '__main__': main(*sys.argv[1:])
