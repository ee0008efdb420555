"What every tool knows about the project: where things are, which notebooks there are, and how to read a cell."
import ast, re
from configparser import ConfigParser
from pathlib import Path

from nbdev.process import extract_directives
from execnb.nbio import read_nb

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT/'nbs'
EXPORTS = {'export', 'exports', 'exporti', 'exec_doc'}


def settings():
    "The project's description, from `settings.ini`."
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini', encoding='utf-8')
    return config['DEFAULT']


def notebooks(folder=NBS):
    "Every notebook under `folder` that is not private (`_x`, `.x`), by name."
    found = sorted(Path(folder).rglob('*.ipynb'))
    return [p for p in found if not any(part[0] in '_.' for part in p.relative_to(folder).parts)]


def is_numbered(path):
    "Is the notebook at `path` one component of the library, such as `nbs/05_refiner.ipynb`?"
    return path.parent.name == 'nbs' and re.match(r'\d+[a-z]?_', path.name) is not None


def read_cells(path):
    "The cells of the notebook at `path`, each with its `#|` directives as a dict in `directives_`."
    cells = read_nb(path).cells
    for cell in cells: cell.directives_ = extract_directives(cell, remove=False) if cell.cell_type == 'code' else {}
    return cells


def is_exported(cell):
    "Does `cell` go into the library?"
    return bool(EXPORTS & cell.directives_.keys())


def statements(cell):
    "The Python statements of the code `cell`, magic lines left out; none if it is not Python."
    source = re.sub(r'^(\s*)[%!].*$', r'\1pass', cell.source, flags=re.MULTILINE)
    try: return ast.parse(source).body
    except SyntaxError: return []


def is_test(cell):
    "Does `cell` test something: an `assert`, or a call of a `test_...` function, outside the library's own code?"
    if cell.cell_type != 'code' or is_exported(cell): return False
    nodes = [node for statement in statements(cell) for node in ast.walk(statement)]
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    names = [getattr(func, 'id', getattr(func, 'attr', '')) for func in calls]
    return any(name.startswith('test_') for name in names) or any(isinstance(node, ast.Assert) for node in nodes)


def mixes_imports(cell):
    "Does `cell` import and do other things too? The site's build would run it without the cells it depends on."
    if cell.cell_type != 'code' or is_exported(cell): return False
    kinds = {type(statement) for statement in statements(cell)} - {ast.Pass}
    return bool(kinds & {ast.Import, ast.ImportFrom}) and bool(kinds - {ast.Import, ast.ImportFrom})
