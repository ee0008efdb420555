"""Make the site's sidebar, nbs/sidebar.yml, from the notebooks there are.

    python tools/sidebar.py            write it
    python tools/sidebar.py --check    exit code 1 if it is out of step
"""
import sys

from house import NBS, is_numbered, notebooks

DEST = NBS/'sidebar.yml'


def groups():
    "The sidebar's groups: name and notebooks."
    found = notebooks()
    return {'Reference': [p for p in found if is_numbered(p)],
            'Tutorials': [p for p in found if p.parent == NBS/'tutorials'],
            'Explanations': [p for p in found if p.parent == NBS/'explanations'],
            'Experiments': [p for p in found if p.parent == NBS/'experiments']}


def entry(path):
    "The lines of one notebook: a numbered one goes by its number too, as the text refers to it."
    href = path.relative_to(NBS).as_posix()
    return [f'          - text: {path.stem.replace("_", " ", 1)}', f'            href: {href}'] if is_numbered(path) else [f'          - {href}']


def sidebar():
    "The text of the sidebar; a group without notebooks is left out."
    lines = ['# Made by tools/sidebar.py.', 'website:', '  sidebar:', '    contents:', '      - index.ipynb']
    for name, paths in groups().items():
        if paths: lines += [f'      - section: {name}', '        contents:']
        for path in paths: lines += entry(path)
    return '\n'.join(lines) + '\n'


def is_in_step():
    "Does the sidebar on disk match the notebooks?"
    return DEST.exists() and DEST.read_text(encoding='utf-8') == sidebar()


def main():
    "Write the sidebar, or check it."
    if '--check' not in sys.argv: DEST.write_text(sidebar(), encoding='utf-8')
    elif not is_in_step(): sys.exit('nbs/sidebar.yml is out of step with the notebooks: run `python tools/sidebar.py`')


if __name__ == '__main__': main()
