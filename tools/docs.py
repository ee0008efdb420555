"""Build the site to _docs/ without Quarto (with Quarto, `nbdev_docs` does): nbdev makes the pages' text, smalldocs the pages.

    python tools/docs.py

Afterwards the site stands alone: it loads nothing from other hosts and works from disk. A dead link, a missing picture, a figure without
a caption, or, where chromium and playwright are installed, a page that is wider than a phone fails the build.
"""
import os, re, shutil, subprocess, sys, tempfile, time
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbdev.doclinks
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
from smalldocs.layout import KATEX
from smalldocs.site import build

import browser, sidebar
from house import ROOT, settings

PROC, DOCS = ROOT/'_proc', ROOT/'_docs'
REMOTE = re.compile(r'(?:https?:)?//')
IN_CODE = re.compile(r'\[(`[^`\n]+`)\]\((?:https?:|\.|/)[^)\s]*\)') # a link nbdev made inside a signature's comment, where it shows as text
MAIN = re.compile(r'__main__(?:<span class="op">)?\.(?:</span>)?') # the module of a class made in the notebook itself
METHOD = re.compile(r'href="(?P<page>[^":#]*)#(?P<class>[^".]+)\.(?P<method>[^"]+)"')
NARROW = 390 # pixels, a phone's width
UNREAD = re.compile(r'\{#(?:fig|eq|tbl)-|(?<![\w/`])@(?:fig|eq|tbl)-\w|\]\(')
CAPTION = re.compile(r'(?<=<figcaption>).*?(?=</figcaption>)', re.DOTALL)
PICTURE = re.compile(r'<img (?P<source>[^>]*)>(?P<below></p>\s*<figcaption>(?P<caption>.*?)</figcaption>)', re.DOTALL)


def process():
    "Run nbdev's processors over the notebooks, into _proc/: links, signatures, hidden cells."
    refresh_quarto_yml()
    sidebar.DEST.write_text(sidebar.sidebar(), encoding='utf-8')
    nbdev.doclinks._build_modidx()
    proc_nbs(n_workers=0, force=True)


def new_names(site):
    "The pages' file names, with and without their number: the links nbdev wrote say `data.html`, the file is `00_data.html`."
    names = {page.out: page.out.with_name(page.front.get('output-file', page.out.name)) for page in site.pages.values()}
    twice = {str(new) for new in names.values() if list(names.values()).count(new) > 1}
    if twice: sys.exit(f'two notebooks make the same page: {", ".join(sorted(twice))}')
    return {str(old): str(new) for old, new in names.items()}


def rename(out, names):
    "Take the numbers out of the pages' file names, and out of the links to them."
    for old, new in names.items(): (out/old).rename(out/new)
    short = {Path(old).name: Path(new).name for old, new in names.items()}
    pattern = re.compile(r'(?<![\w-])(' + '|'.join(re.escape(o) for o in short) + r')(?![\w-])')
    for path in [*out.rglob('*.html'), out/'search.json', out/'sitemap.xml']:
        if path.exists(): edit(path, lambda text: pattern.sub(lambda m: short[m[1]], text))


def edit(path, change):
    "Rewrite the file at `path` with the function `change`."
    path.write_text(change(path.read_text(encoding='utf-8')), encoding='utf-8')


def fetch_katex(out):
    "Copy KaTeX, which draws the formulas, from npm into the site."
    if not shutil.which('npm'): sys.exit('npm is missing: the formulas of the site need KaTeX from npm (on Debian: apt-get install npm)')
    package = re.search(r'katex@[\d.]+', KATEX)[0]
    with tempfile.TemporaryDirectory() as folder:
        command = ['npm', 'install', '--no-save', '--no-package-lock', '--ignore-scripts', '--prefix', folder, package]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode: sys.exit(f'npm could not install {package}:\n{done.stderr[-2000:]}')
        dist, dest = Path(folder)/'node_modules/katex/dist', out/'site_libs/katex'
        shutil.copytree(dist/'fonts', dest/'fonts')
        (dest/'contrib').mkdir()
        for name in ('katex.min.css', 'katex.min.js', 'contrib/auto-render.min.js'): shutil.copy(dist/name, dest/name)


# Read from disk, a page may not fetch search.json, but it may load a script.
SEARCH = """<script>if (location.protocol === 'file:') {
  const fetched = window.fetch;
  window.fetch = (address, ...more) => !String(address).endsWith('search.json') ? fetched(address, ...more) : new Promise((found) => {
    const script = document.createElement('script');
    script.src = String(address).replace(/json$/, 'js');
    script.onload = () => found(new Response(JSON.stringify(window.searchIndex)));
    document.head.append(script);
  });
}</script>"""


# A phone has no room for the margin: the contents of a page go under its title, folded, and so does source code.
# Whatever the width, a search is over when something that it found is chosen, and printed lines keep their columns if they have some.
SMALL = """<script>addEventListener('DOMContentLoaded', () => {
  document.addEventListener('click', (event) => {
    if (!event.target.closest('.smalldocs-search-results a')) return;
    const field = document.querySelector('.smalldocs-search input');
    field.value = ''; field.dispatchEvent(new Event('input', {bubbles: true})); field.blur();
    document.querySelector('.navbar-collapse')?.classList.remove('show');
  });
  document.querySelectorAll('.cell-output pre').forEach((printed) => printed.classList.toggle('columns', /\\S {3,}\\S/.test(printed.textContent)));
  if (innerWidth > 767) return;
  document.querySelectorAll('details.code-fold[open]').forEach((source) => source.open = false);
  const contents = document.querySelector('#TOC ul'), title = document.querySelector('#title-block-header');
  if (!contents || !title) return;
  const folded = document.createElement('details');
  folded.innerHTML = '<summary>On this page</summary>';
  folded.append(contents.cloneNode(true));
  folded.querySelectorAll('[id]').forEach((part) => part.removeAttribute('id'));
  title.after(folded);
});</script>"""


def search_from_disk(out):
    "Make the search work where nothing serves the pages."
    (out/'search.js').write_text('window.searchIndex = ' + (out/'search.json').read_text(encoding='utf-8'), encoding='utf-8')
    for path in out.rglob('*.html'): edit(path, lambda text: text.replace('</head>', f'{SEARCH}{SMALL}</head>', 1))


def stand_alone(out):
    "Make the site independent of other hosts: local KaTeX, no fonts from elsewhere, relative links to its own pages; and tidy signatures."
    fetch_katex(out)
    home = settings()['doc_host'] + settings()['doc_baseurl'] + '/'
    for path in (out/'site_libs').rglob('*.css'):
        edit(path, lambda text: re.sub(r'@import\s+url\(["\']?(?:https?:)?//[^)]*\)[^;]*;', '', text))
    for path in [*out.rglob('*.html'), out/'search.json']:
        edit(path, lambda text: MAIN.sub('', IN_CODE.sub(r'\1', text)))
    for path in out.rglob('*.html'):
        root = os.path.relpath(out, path.parent) + '/'
        edit(path, lambda text: text.replace(KATEX, f'{root}site_libs/katex').replace(f'href="{home}', f'href="{root}'))


def described(picture):
    "The `picture` (a match of PICTURE) with its caption as the text for who doesn't see it."
    words = escape(unescape(re.sub(r'<[^>]+>|`', '', picture['caption'])))
    return f'<img {picture["source"]} alt="{words}">{picture["below"]}' if ' alt=' not in picture['source'] else picture[0]


def captions(out):
    "Give pictures their captions as alternative text, and show what stands between backticks in a caption as code."
    code = lambda caption: re.sub(r'`([^`]+)`', r'<code>\1</code>', caption[0])
    for path in out.rglob('*.html'): edit(path, lambda text: CAPTION.sub(code, PICTURE.sub(described, text)))


def to_class(path, link):
    "The `link` (a match of METHOD) on the page at `path`, or one to the class where the method has no entry of its own."
    page = path.parent/link['page'] if link['page'] else path
    has_entry = not page.is_file() or f'id="{link["class"]}.{link["method"]}"' in page.read_text(encoding='utf-8')
    return link[0] if has_entry else f'href="{link["page"]}#{link["class"]}"'


def mend_links(out):
    "Mend the links to methods: nbdev makes one for every method it knows, also those that no page describes."
    for path in out.rglob('*.html'): edit(path, lambda text: METHOD.sub(lambda link: to_class(path, link), text))


class Page(HTMLParser):
    "What one page holds: the ids of its parts, its links, the files it loads, and its text."

    def __init__(self, path):
        "Read the page at `path`."
        super().__init__()
        self.path, self.ids, self.links, self.loads, self.text, self.in_code = path, {''}, [], [], [], 0
        self.captioned = [] # of each picture in the page itself: has it a caption?
        self.silent = 0 # pictures without alternative text
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        "Note the ids and addresses in a `tag`."
        attrs = {k: v or '' for k, v in attrs}
        self.ids |= {attrs[k] for k in ('id', 'name') if k in attrs}
        self.in_code += tag in ('code', 'script', 'style')
        if tag == 'a' and 'href' in attrs: self.links.append(attrs['href'])
        elif tag == 'link' and attrs.get('rel') != 'canonical': self.loads.append(attrs.get('href', ''))
        elif 'src' in attrs: self.loads.append(attrs['src'])
        if tag == 'img' and attrs.get('src', '').startswith('data:'): self.captioned.append(False)
        self.silent += tag == 'img' and 'alt' not in attrs
        if tag == 'figcaption' and self.captioned: self.captioned[-1] = True

    def handle_endtag(self, tag):
        "Note that code ends."
        self.in_code -= tag in ('code', 'script', 'style')

    def handle_data(self, data):
        "Keep the text that is not code."
        if not self.in_code: self.text.append(data)


def faults(out):
    "What is wrong with the site, one line each: dead links, missing pictures, files loaded from other hosts, raw Quarto marks."
    pages = {path.resolve(): Page(path) for path in sorted(out.rglob('*.html'))}
    for path, page in pages.items():
        name = path.relative_to(out.resolve())
        yield from (f'{name}: loads {o}' for o in page.loads if REMOTE.match(o))
        yield from (f'{name}: picture {i} has no caption' for i, captioned in enumerate(page.captioned, 1) if not captioned)
        if page.silent: yield f'{name}: {page.silent} pictures without alternative text'
        yield from (f'{name}: shows {o!r} as it is' for o in UNREAD.findall(''.join(page.text)))
        for address in page.links + page.loads:
            if re.match(r'[a-z]+:|//', address): continue
            parts = urlsplit(address)
            dest = (path.parent/unquote(parts.path)).resolve() if parts.path else path
            if dest.is_dir(): dest = dest/'index.html'
            missing_id = dest in pages and unquote(parts.fragment) not in pages[dest].ids
            if not dest.exists() or missing_id: yield f'{name}: dead link {address}'
    for path in out.rglob('*.css'):
        remote = re.search(r'url\(["\']?(?:https?:)?//|@import\s+["\']', path.read_text(encoding='utf-8'))
        if remote: yield f'{path.relative_to(out)}: loads from another host'


def too_wide(out):
    "Pages that must be scrolled sideways on a phone, one line each; none, after a line that says so, where no browser is at hand."
    missing = browser.missing('playwright')
    if missing: return print(f'skipped: how wide the pages are ({missing})') or []
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        page = p.chromium.launch(executable_path=shutil.which('chromium'), args=browser.FLAGS).new_page(viewport=dict(width=NARROW, height=800))
        def width(path):
            page.goto(path.resolve().as_uri())
            return page.evaluate('document.documentElement.scrollWidth')
        return [f'{path.relative_to(out)}: {w} pixels wide on a screen of {NARROW}' for path in sorted(out.rglob('*.html')) if (w := width(path)) > NARROW]


def main():
    "Build the site; exit code 1 if anything in it is wrong."
    start = time.time()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    try:
        process()
        site = build(PROC, quiet=True)
        rename(site.out, new_names(site))
        stand_alone(site.out)
        mend_links(site.out)
        captions(site.out)
        search_from_disk(site.out)
        found = sorted({*faults(site.out), *too_wide(site.out)})
        shutil.rmtree(DOCS, ignore_errors=True)
        shutil.move(site.out, DOCS)
    finally: shutil.rmtree(PROC, ignore_errors=True)
    print(*found, sep='\n', end='\n' if found else '')
    print(f'{len(site.pages)} pages in _docs/, {len(found)} faults, {time.time()-start:.0f} s')
    sys.exit(1 if found else 0)


if __name__ == '__main__': main()
