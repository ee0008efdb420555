"""Make README.md, and index_files/ for its pictures, from nbs/index.ipynb.

    python tools/readme.py            write them
    python tools/readme.py --check    exit code 1 if they are out of step
"""
import base64, posixpath, re, sys

import yaml

from house import EXPORTS, NBS, ROOT, notebooks, read_cells

IMAGES = {'image/png': 'png', 'image/jpeg': 'jpg', 'image/svg+xml': 'svg'}
HIDDEN = {'hide', 'default_exp'} | EXPORTS
CODE = r'```.*?```|`[^`\n]*`'
LINK = re.compile(CODE + r'|(?P<before>\]\(|\b(?:src|href)=")(?![a-z]+:|#|/)(?P<link>[^)"\s#]+)', flags=re.DOTALL)


def split(source):
    "The `#| key: value` options at the top of `source`, and the code below all `#|` lines."
    lines = source.splitlines()
    top = next((i for i, line in enumerate(lines) if not line.startswith('#|')), len(lines))
    options = '\n'.join(line[2:].strip() for line in lines[:top] if ':' in line)
    return yaml.safe_load(options) or {}, '\n'.join(lines[top:]).strip()


def target(link):
    "Where a `link` written in nbs/index.ipynb leads from the root; a page of the site leads to its notebook."
    pages = {re.sub(r'^\d+[a-z]?_', '', p.name).replace('.ipynb', '.html'): p.name for p in notebooks() if p.parent == NBS}
    found = posixpath.normpath(posixpath.join('nbs', pages.get(link, link)))
    if not (ROOT/found).exists(): sys.exit(f'README.md: nbs/index.ipynb links to {link}, which does not exist')
    return found


def prose(source):
    "A Markdown cell's `source`, its links led from the root; YAML at its top becomes a heading."
    front = re.match(r'---\n(.*?)\n---\s*', source, flags=re.DOTALL)
    if front:
        meta = yaml.safe_load(front[1])
        source = f"# {meta['title']}\n\n> {meta.get('description', '')}\n" + source[front.end():]
    return LINK.sub(lambda m: m['before'] + target(m['link']) if m['link'] else m[0], source.strip())


def image(data, kind, name, options, files):
    "The Markdown of a picture, whose bytes go into `files` under `name`."
    value = ''.join(data[kind])
    files[name] = value.encode() if kind == 'image/svg+xml' else base64.b64decode(value)
    caption = str(options.get('fig-cap') or '')
    alt = str(options.get('fig-alt') or caption).replace('\n', ' ')
    return f'![{alt}](index_files/{name})' + (f'\n\n*{caption}*' if caption else '')


def output(out, name, options, files):
    "The Markdown of one saved output of a cell."
    if out['output_type'] == 'stream': data = {'text/plain': out['text']} if out['name'] == 'stdout' else {}
    else: data = out.get('data', {})
    embedded = 'data:image' in ''.join(data.get('text/html', ''))          # pictures inside of HTML are not shown on GitHub
    kinds = *IMAGES, 'text/markdown', *([] if embedded else ['text/html']), 'text/plain'
    kind = next((k for k in kinds if k in data), None)
    if kind is None: return ''
    if kind in IMAGES: return image(data, kind, f'{name}.{IMAGES[kind]}', options, files)
    text = ''.join(data[kind]).strip()
    if kind == 'text/html': return re.sub(r'<style.*?</style>', '', text, flags=re.DOTALL).strip()
    return text if kind == 'text/markdown' else f'```text\n{text}\n```'


def code(number, cell, files):
    "The Markdown of a code cell: its source and its outputs, as far as its options show them."
    options, source = split(cell.source)
    if HIDDEN & cell.directives_.keys() or options.get('include') is False: return []
    parts = [f'```python\n{source}\n```'] if source and options.get('echo') is not False else []
    if options.get('output') is False: return parts
    return parts + [output(out, f'cell-{number}-{i}', options, files) for i, out in enumerate(cell.outputs)]


def readme():
    "The text of README.md, and its pictures as a dict from file name to bytes."
    files, parts = {}, ['<!-- Made from nbs/index.ipynb by tools/readme.py: do not edit. -->']
    for number, cell in enumerate(read_cells(NBS/'index.ipynb')):
        parts += code(number, cell, files) if cell.cell_type == 'code' else [prose(cell.source)]
    return '\n\n'.join(part for part in parts if part) + '\n', files


def on_disk():
    "What `readme` returned when the files on disk were made."
    path, folder = ROOT/'README.md', ROOT/'index_files'
    text = path.read_text(encoding='utf-8') if path.exists() else ''
    return text, {p.name: p.read_bytes() for p in folder.glob('*')}


def write(text, files):
    "Write README.md and its pictures; remove pictures no longer used."
    folder = ROOT/'index_files'
    (ROOT/'README.md').write_text(text, encoding='utf-8')
    for path in folder.glob('*'): path.unlink()
    if folder.exists(): folder.rmdir()
    if files: folder.mkdir()
    for name, content in files.items(): (folder/name).write_bytes(content)


def main():
    "Write README.md, or check it."
    if '--check' not in sys.argv: write(*readme())
    elif readme() != on_disk(): sys.exit('README.md is out of step with nbs/index.ipynb: run `python tools/readme.py`')


if __name__ == '__main__': main()
